// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"maps"
	"strings"

	"github.com/brolga-hpc/brolga/pkg/audit"
	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/option"
)

// openAudit opens the site's audit log before anything is mounted. Without one, and
// without a syslog on the node, the step starts all the same.
func (r *run) openAudit() {
	path := r.Step.Config.AuditLog
	if path == "" {
		return
	}
	var err error
	if r.log, err = audit.Open(path); err != nil {
		r.addMessage("debug", fault.Line(err))
	}
}

// writeAudit writes the line of this step and node, before the tasks are told how it went.
func (r *run) writeAudit(refused error) {
	if r.log == nil {
		return
	}
	line := r.event
	line.UID, line.User, line.Node, line.Step = r.Step.Account.UID, r.Step.Account.Name, r.Step.Node, r.request.Step
	line.Image, line.Options, line.Refused = r.request.Image.String(), auditOptions(r.Step.Asked), refused
	if r.request.Named != nil && line.Way == "" {
		line.Way = "named"
	}
	if err := r.log.Write(line); err != nil {
		r.addMessage("debug", fault.Line(err))
	}
	_ = r.log.Close() // nothing is left to be written
	r.log = nil
}

// auditOptions returns options without the values of variables, which may be secrets.
func auditOptions(asked option.Set) option.Set {
	options := maps.Clone(asked)
	value, ok := options[option.Env]
	if !ok {
		return options
	}
	edits, _ := option.ParseEnv(value) // a mistake in it is the reason for a refusal
	var names []string
	for _, edit := range edits {
		names = append(names, edit.Name)
	}
	options[option.Env] = strings.Join(names, ",")
	return options
}
