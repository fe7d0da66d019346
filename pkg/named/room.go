// SPDX-License-Identifier: Apache-2.0

package named

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/fault"
)

// spare is what must be free for a container to be used.
const spare = 16 << 20

// unit is what sizes of file systems are multiples of.
const unit = 1 << 20

// lockName is locked, below site.Directory, while a container's size is chosen. No
// node is called so (nodeDir), and users cannot open it.
const lockName = ".lock"

// reserve gives the file of a new container its size: that of the site, or half of
// what its user may still be promised. A disk that is full below a file system loses
// what was written to that, although no write has failed.
//
// All users are promised no more than the disk has, and each of them no more than a
// share of what the others leave. So a user who makes containers without end takes one
// share, and another user's first container has room.
func (c *Container) reserve(f *os.File) error {
	lock, err := lockFile(filepath.Join(c.site.Directory, lockName), 0)
	if err != nil {
		return err
	}
	if lock != nil {
		defer lock.Close()
	}
	if err := c.checkShare(); err != nil {
		return err
	}
	size := int64(c.site.Size)
	if !c.site.Overcommit {
		left, own, err := c.room()
		if err != nil {
			return err
		}
		mine := (left+own)/100*int64(c.site.UserShare) - own
		switch size = min(size, max(0, mine)/2/unit*unit); {
		case left/2 < config.MinNamed:
			return c.noRoom(left)
		case size < config.MinNamed:
			return c.noShare(own)
		}
	}
	return f.Truncate(size)
}

// room returns what the disk has left when all containers on it are full, and what the
// user's own take of it then.
func (c *Container) room() (left, own int64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(c.site.Directory, &st); err != nil {
		return 0, 0, fmt.Errorf("find out what room is left: %w", err)
	}
	left = int64(st.Bavail)*st.Bsize - spare
	all, err := filepath.Glob(filepath.Join(c.site.Directory, "*", "*", "*"+suffixData))
	user := filepath.Base(filepath.Dir(c.path))
	for _, path := range all {
		var f unix.Stat_t
		if path == c.path+suffixData || unix.Lstat(path, &f) != nil {
			continue
		}
		left -= max(0, f.Size-f.Blocks*512)
		if filepath.Base(filepath.Dir(path)) == user {
			own += max(f.Size, f.Blocks*512)
		}
	}
	return max(0, left), own, err
}

// noShare says that the user has had what there is for one.
func (c *Container) noShare(own int64) error {
	return fault.WithHint(fmt.Errorf("your containers have %s of %s on this node, and this cluster allows %d %% of what other users leave",
		config.Size(own/unit*unit), c.site.Directory, c.site.UserShare),
		`remove some ("brolga containers", "brolga rm"), those of jobs go when the jobs end; or try another node`)
}

func (c *Container) noRoom(room int64) error {
	return fault.WithHint(fmt.Errorf("only %s of %s on this node are not promised to other containers", config.Size(room/unit*unit), c.site.Directory),
		`remove containers that you do not need ("brolga containers"), try another node, or ask the administrator for a smaller named.size`)
}

// checkShare keeps the user within what the site allows on the node.
func (c *Container) checkShare() error {
	others, used, err := c.others()
	if err != nil || c.allowed(others, used) == nil {
		return err
	}
	// What the user, or the end of a job, has left does not count.
	all, err := userContainers(filepath.Dir(c.path))
	for _, f := range all {
		if f.path != c.path {
			_, failed := (&collector{}).judge(f)
			err = errors.Join(err, failed)
		}
	}
	if err != nil {
		return err
	}
	if others, used, err = c.others(); err != nil {
		return err
	}
	return c.allowed(others, used)
}

// others returns the number of the user's other containers on the node, and what they
// take of its disk.
func (c *Container) others() (count int, used config.Size, err error) {
	all, err := userContainers(filepath.Dir(c.path))
	for _, f := range all {
		if _, failed := os.Lstat(f.path + suffixData); f.path != c.path && !errors.Is(failed, fs.ErrNotExist) {
			count++
			used += config.Size(f.size)
		}
	}
	return count, used, err
}

func (c *Container) allowed(others int, used config.Size) error {
	var err error
	switch site := c.site; {
	case others >= site.Count:
		err = fmt.Errorf("you have %d containers on node %s, and this cluster allows %d", others, c.want.Node, site.Count)
	case site.UserSize > 0 && used >= site.UserSize:
		err = fmt.Errorf("your containers on node %s take %s, and this cluster allows %s", c.want.Node, (used+unit-1)/unit*unit, site.UserSize)
	default:
		return nil
	}
	return fault.WithHint(err, `remove some ("brolga containers", "brolga rm"); those of jobs go when the jobs end`)
}
