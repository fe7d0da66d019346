// SPDX-License-Identifier: Apache-2.0

package request

import (
	"errors"
	"fmt"

	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/option"
)

// resolveSSH comes after the namespaces are known.
func (r *Request) resolveSSH(c config.Config, o option.Set) error {
	if !o.Flag(option.SSH, false) {
		return nil
	}
	var errs []error
	if !c.SSH.Enabled {
		errs = append(errs, fault.WithHint(fmt.Errorf("--%s: this cluster does not allow SSH servers in containers", option.SSH),
			"leave it out, or ask the administrator for ssh.enabled in the site configuration"))
	}
	if r.Unshares("net") {
		errs = append(errs, fault.WithHint(fmt.Errorf("--%s cannot be used with --%s=net", option.SSH, option.Unshare),
			"a network with a loopback device only is reached by nobody: leave one of them out"))
	}
	if r.RemapRoot {
		errs = append(errs, fault.WithHint(fmt.Errorf("--%s cannot be used with --%s", option.SSH, option.RemapRoot),
			"add --"+option.NoRemapRoot+" to be yourself in the container"))
	}
	r.SSH = &c.SSH
	return errors.Join(errs...)
}
