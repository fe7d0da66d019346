// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/ssh/files"
	"github.com/brolga-hpc/brolga/pkg/ssh/realm"
	"github.com/brolga-hpc/brolga/pkg/ssh/server"
	"github.com/brolga-hpc/brolga/pkg/ssh/setup"
)

// serve is the server. It ends with the step's last task on the node.
func serve() error {
	// What is said of it: its descriptor's number would be its name.
	_ = os.WriteFile("/proc/self/comm", []byte("brolga-sshd"), 0)
	unix.Close(setup.ProgramFD)
	unix.CloseOnExec(setup.SocketFD)
	// Of no terminal, and not of those who signal all that is the user's by mistake.
	signal.Ignore(unix.SIGHUP, unix.SIGPIPE)
	helper := setup.NewConn(setup.SocketFD)
	// It has the step's key, which no core file and no other process of the user may have.
	// Its limit of core files is that of its sessions.
	hidden := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	s, listeners, err := start(helper)
	if err := errors.Join(hidden, err, helper.SendReady(err)); err != nil {
		return err
	}
	for _, l := range listeners {
		go s.Serve(l)
	}
	err = outlive(helper)
	for _, l := range listeners {
		l.Close()
	}
	s.Stop()
	return err
}

// start makes the server of what the helper says.
func start(helper *setup.Conn) (*server.Server, []net.Listener, error) {
	given, err := helper.ReceiveSetup()
	if err != nil {
		return nil, nil, err
	}
	unix.Umask(given.Umask)
	limit(given.Limits)
	if given.Filter != nil {
		if err := given.Filter.Install(); err != nil {
			return nil, nil, err
		}
	}
	r := realm.Realm{Key: given.Key, User: given.User, First: given.Site.Ports.First, Last: given.Site.Ports.Last}
	for _, n := range given.Nodes {
		r.Nodes = append(r.Nodes, realm.Node{Name: n.Name, Address: n.Address})
	}
	own := r.Nodes[given.Own]
	listeners, err := listen(own.Address, r.Ports(own.Name))
	if err != nil {
		return nil, nil, err
	}
	r.Nodes[given.Own].Also = also()
	if err := files.Write(setup.Dir, r, setup.Program+" connect"); err != nil {
		return nil, nil, err
	}
	s, err := server.New(server.Settings{
		User:        r.User,
		ClientKey:   r.ClientKey().Public().(ed25519.PublicKey),
		HostKey:     r.HostKey(own.Name),
		Banner:      r.Banner(own.Name),
		Env:         given.Env(),
		Dir:         given.Dir,
		Connections: given.Site.Connections,
		Sessions:    given.Site.Sessions,
		LoginTime:   time.Duration(given.Site.LoginTime),
		Forwarding:  given.Site.Forwarding,
	})
	return s, listeners, err
}

// limited are the limits that sessions get from the server. Those of time and
// address space would hit the server itself.
var limited = map[string]int{
	"CORE": unix.RLIMIT_CORE, "DATA": unix.RLIMIT_DATA, "FSIZE": unix.RLIMIT_FSIZE, "MEMLOCK": unix.RLIMIT_MEMLOCK,
	"NOFILE": unix.RLIMIT_NOFILE, "NPROC": unix.RLIMIT_NPROC, "STACK": unix.RLIMIT_STACK,
}

// limit sets limits, as Slurm does: the soft ones, as far as the node lets.
func limit(limits map[string]uint64) {
	for name, number := range limited {
		var now syscall.Rlimit
		want, ok := limits[name]
		if !ok || syscall.Getrlimit(number, &now) != nil {
			continue
		}
		now.Cur = min(want, now.Max)
		// With another package Go would set the number of files anew in children.
		_ = syscall.Setrlimit(number, &now)
	}
}

// also returns other names by which the own node is known on it.
func also() []string {
	names := []string{"localhost"}
	if name, err := os.Hostname(); err == nil {
		names = append(names, name)
	}
	return names
}

// listen listens on the first of the ports that is free, at the node's address. If
// that is none of the machine's, or a name that means the machine itself here, the
// others come by another one: then at all.
func listen(address string, ports []int) ([]net.Listener, error) {
	addresses := []net.IP{nil}
	if found, err := net.LookupIP(address); err == nil && reachable(address, found) {
		addresses = found
	}
	var last error
	for _, port := range ports {
		listeners, err := listenAll(addresses, port)
		if errors.Is(err, unix.EADDRNOTAVAIL) {
			addresses = []net.IP{nil}
			listeners, err = listenAll(addresses, port)
		}
		if err == nil {
			return listeners, nil
		}
		last = err
	}
	return nil, fmt.Errorf("none of the %d ports that others look at is free: %w", len(ports), last)
}

// reachable tells whether others can mean the same by a name: not where /etc/hosts
// calls this machine by a loopback address, as Debian's does.
func reachable(name string, addresses []net.IP) bool {
	for _, a := range addresses {
		if a.IsLoopback() && net.ParseIP(name) == nil {
			return false
		}
	}
	return len(addresses) > 0
}

func listenAll(addresses []net.IP, port int) ([]net.Listener, error) {
	var all []net.Listener
	for _, a := range addresses {
		l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: a, Port: port})
		if err != nil {
			for _, l := range all {
				l.Close()
			}
			return nil, err
		}
		all = append(all, l)
	}
	return all, nil
}

// outlive returns when no task can come any more, and all that came have ended.
func outlive(helper *setup.Conn) error {
	waiting := []unix.PollFd{{Fd: int32(helper.FD()), Events: unix.POLLIN}}
	for more := true; len(waiting) > 0; {
		if _, err := unix.Poll(waiting, -1); errors.Is(err, unix.EINTR) {
			continue
		} else if err != nil {
			return fmt.Errorf("wait for the tasks: %w", err)
		}
		var still []unix.PollFd
		for i, p := range waiting {
			switch {
			case p.Revents == 0:
				still = append(still, p)
			case more && i == 0:
				task, err := helper.ReceiveTask()
				if more = err == nil; !more {
					helper.Close()
					if !errors.Is(err, io.EOF) {
						return err
					}
					continue
				}
				still = append(still, p, unix.PollFd{Fd: int32(task), Events: unix.POLLIN})
			default: // a task has ended
				unix.Close(int(p.Fd))
			}
		}
		waiting = still
	}
	return nil
}
