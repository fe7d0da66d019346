// SPDX-License-Identifier: Apache-2.0

package barrier

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/wire"
)

// A connection begins so, the caller being the node that is deeper in the tree, but
// for one that has no port:
//
//	caller    magic, 32 random bytes
//	listener  32 random bytes, a MAC of "listener", the step, the listener's number
//	          and both random numbers
//	caller    its number, a MAC of "caller", the step, both numbers and both random
//	          numbers
//
// MACs are HMAC-SHA256 with the barrier's key. Each side proves that it knows the
// key, for this connection and for this place in this step, before the other tells
// it anything: what was recorded elsewhere is of no use, and neither is what one side
// said to be said back to it. Frames follow, each a length of 4 bytes and that many
// bytes of AES-256-GCM, with a key for each direction that is derived from all of the
// above, and a counter as nonce: none can be read, changed, repeated or left out.
const (
	magic     = "brolga barrier 1"
	nonceSize = 32
	macSize   = sha256.Size

	// maxFrame is far above what a message about all nodes of a cluster takes, chunk what
	// is set aside for one before it is there. No more than maxLarge frames that are
	// longer than that are kept at a time, and none has more than maxRecords.
	maxFrame   = 1 << 20
	chunk      = 4096
	maxLarge   = 2
	maxRecords = 16
)

// identity is what the nodes of one barrier agree on.
type identity struct {
	key []byte
	// step is a hash of the step and its nodes.
	step [sha256.Size]byte
	own  int
	// large has room for each long frame that is kept.
	large chan struct{}
}

func newIdentity(c Config) identity {
	h := sha256.New()
	for _, n := range c.Nodes {
		fmt.Fprintf(h, "%d:%s", len(n.Name), n.Name)
	}
	id := identity{key: c.Key, own: c.Own, large: make(chan struct{}, maxLarge)}
	h.Sum(id.step[:0])
	return id
}

// transcript is what both sides have said, with the words that set apart what it
// is used for.
func (id identity) transcript(word string, numbers []int, nonces ...[]byte) []byte {
	b := append([]byte(magic+"\x00"+word+"\x00"), id.step[:]...)
	for _, n := range numbers {
		b = binary.BigEndian.AppendUint32(b, uint32(n))
	}
	return append(b, slices.Concat(nonces...)...)
}

func (id identity) mac(word string, numbers []int, nonces ...[]byte) []byte {
	h := hmac.New(sha256.New, id.key)
	h.Write(id.transcript(word, numbers, nonces...))
	return h.Sum(nil)
}

func (id identity) cipher(direction string, numbers []int, nonces ...[]byte) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, id.key, nil, string(id.transcript(direction, numbers, nonces...)), 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

func newNonce() ([]byte, error) {
	n := make([]byte, nonceSize)
	_, err := unix.Getrandom(n, 0)
	return n, err
}

var errStranger = errors.New("the other side is not of this step")

// call is the caller's part of the beginning.
func (id identity) call(conn net.Conn, listener int) (*link, error) {
	mine, err := newNonce()
	if err != nil {
		return nil, err
	}
	if _, err := conn.Write(append([]byte(magic), mine...)); err != nil {
		return nil, err
	}
	answer := make([]byte, nonceSize+macSize)
	if _, err := io.ReadFull(conn, answer); err != nil {
		return nil, err
	}
	theirs := answer[:nonceSize]
	if !hmac.Equal(answer[nonceSize:], id.mac("listener", []int{listener}, mine, theirs)) {
		return nil, errStranger
	}
	numbers := []int{id.own, listener}
	proof := binary.BigEndian.AppendUint32(nil, uint32(id.own))
	if _, err := conn.Write(append(proof, id.mac("caller", numbers, mine, theirs)...)); err != nil {
		return nil, err
	}
	return id.link(conn, listener, true, numbers, mine, theirs)
}

// answer is the listener's part.
func (id identity) answer(conn net.Conn) (*link, error) {
	hello := make([]byte, len(magic)+nonceSize)
	if _, err := io.ReadFull(conn, hello[:len(magic)]); err != nil || !bytes.HasPrefix(hello, []byte(magic)) {
		return nil, errStranger
	}
	if _, err := io.ReadFull(conn, hello[len(magic):]); err != nil {
		return nil, errStranger
	}
	theirs := hello[len(magic):]
	mine, err := newNonce()
	if err != nil {
		return nil, err
	}
	if _, err := conn.Write(append(slices.Clone(mine), id.mac("listener", []int{id.own}, theirs, mine)...)); err != nil {
		return nil, err
	}
	proof := make([]byte, 4+macSize)
	if _, err := io.ReadFull(conn, proof); err != nil {
		return nil, errStranger
	}
	caller := int(binary.BigEndian.Uint32(proof))
	numbers := []int{caller, id.own}
	if !hmac.Equal(proof[4:], id.mac("caller", numbers, theirs, mine)) {
		return nil, errStranger
	}
	l, err := id.link(conn, caller, false, numbers, theirs, mine)
	if err != nil {
		return nil, err
	}
	// The caller may have proved itself and given up.
	m, err := l.read()
	l.release()
	if err != nil || m.kind() != kindHere {
		return nil, errStranger
	}
	return l, nil
}

// link is a connection to a node that has proved to be of this step.
type link struct {
	conn net.Conn
	peer int // number of the other node

	seal, open     cipher.AEAD
	sent, received uint64

	large chan struct{} // of the identity
	holds bool          // room in large, for the message that was read last

	out  chan message
	once sync.Once
	done chan struct{} // all that was to be sent is sent, or nothing can be
	end  chan struct{} // the peer will send nothing more
}

func (id identity) link(conn net.Conn, peer int, called bool, numbers []int, nonces ...[]byte) (*link, error) {
	up, err1 := id.cipher("from the caller", numbers, nonces...)
	down, err2 := id.cipher("from the listener", numbers, nonces...)
	l := &link{conn: conn, peer: peer, seal: up, open: down, large: id.large, out: make(chan message, maxQueue), done: make(chan struct{}), end: make(chan struct{})}
	if !called {
		l.seal, l.open = down, up
	}
	return l, errors.Join(err1, err2)
}

// maxQueue is more than what is ever sent on one link.
const maxQueue = 8

// send has a message sent; it never waits.
func (l *link) send(m message) {
	select {
	case l.out <- m:
	default: // a peer that reads nothing is as good as gone
	}
}

// finish says that nothing more will be sent.
func (l *link) finish() { l.once.Do(func() { close(l.out) }) }

// write sends what is queued until there is nothing more.
func (l *link) write(timeout time.Duration) {
	defer close(l.done)
	for m := range l.out {
		if err := l.writeMessage(m, timeout); err != nil {
			l.conn.Close()
			for range l.out {
			}
			return
		}
	}
	if half, ok := l.conn.(*net.TCPConn); ok {
		_ = half.CloseWrite() // the peer has read all, or is gone
	}
}

func counter(n uint64) []byte { return binary.BigEndian.AppendUint64(make([]byte, 4, 12), n) }

func (l *link) writeMessage(m message, timeout time.Duration) error {
	text, err := wire.Marshal(m)
	if err != nil {
		return err
	}
	size := len(text) + l.seal.Overhead()
	if size > maxFrame {
		return fmt.Errorf("internal error: frame of %d bytes", size)
	}
	frame := binary.BigEndian.AppendUint32(make([]byte, 0, 4+size), uint32(size))
	frame = l.seal.Seal(frame, counter(l.sent), text, nil)
	l.sent++
	if err := l.conn.SetWriteDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	_, err = l.conn.Write(frame)
	return err
}

// release gives back the room of a long message. Its receiver has acted on it.
func (l *link) release() {
	if l.holds {
		<-l.large
		l.holds = false
	}
}

// read waits for the next message.
func (l *link) read() (message, error) {
	var head [4]byte
	if _, err := io.ReadFull(l.conn, head[:]); err != nil {
		return nil, err
	}
	size := int(binary.BigEndian.Uint32(head[:]))
	if size < l.open.Overhead() || size > maxFrame {
		return nil, fmt.Errorf("frame of %d bytes", size)
	}
	if size > chunk { // a node that stops here makes its own step wait, and no other
		l.large <- struct{}{}
		l.holds = true
	}
	var frame bytes.Buffer
	frame.Grow(min(size, chunk))
	if _, err := io.CopyN(&frame, l.conn, int64(size)); err != nil {
		return nil, err
	}
	text, err := l.open.Open(nil, counter(l.received), frame.Bytes(), nil)
	if err != nil {
		return nil, errors.New("a frame was changed on its way")
	}
	l.received++
	if bytes.Count(text, []byte{0}) > maxRecords {
		return nil, fmt.Errorf("a message of more than %d records", maxRecords)
	}
	records, err := wire.Unmarshal(text)
	return records, err
}
