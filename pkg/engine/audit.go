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
func (e *Engine) openAudit() {
	path := e.Job.Config.AuditLog
	if path == "" {
		return
	}
	var err error
	if e.log, err = audit.Open(path); err != nil {
		e.say("debug", fault.Line(err))
	}
}

// tellAudit writes the line of this step and node, before the tasks are told how it went.
func (e *Engine) tellAudit(refused error) {
	if e.log == nil {
		return
	}
	line := e.audit
	r := e.Job.Request
	line.UID, line.User, line.Node, line.Step = e.Job.Account.UID, e.Job.Account.Name, e.Job.Node, r.Step
	line.Image, line.Options, line.Refused = r.Image.String(), auditOptions(e.Job.Asked), refused
	if r.Named != nil && line.Way == "" {
		line.Way = "named"
	}
	if err := e.log.Write(line); err != nil {
		e.say("debug", fault.Line(err))
	}
	_ = e.log.Close() // nothing is left to be written
	e.log = nil
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
