// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"testing"

	"github.com/brolga-hpc/brolga/pkg/option"
)

func TestAuditOptionsHaveNoValuesOfVariables(t *testing.T) {
	asked := option.Set{option.Env: `A=secret,B,-C,D=x\,secret=1,1=secret`, option.Image: "debian"}
	got := auditOptions(asked)
	if got[option.Env] != "A,B,C,D" || got[option.Image] != "debian" {
		t.Errorf("options = %q", got)
	}
	if asked[option.Env] == got[option.Env] {
		t.Error("the step's own options have changed")
	}
	if got := auditOptions(option.Set{}); len(got) != 0 {
		t.Errorf("without options %q", got)
	}
}
