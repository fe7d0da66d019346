// SPDX-License-Identifier: Apache-2.0

// Command libbrolga is the c-shared library that the SPANK shim opens in srun,
// sbatch and salloc. spank/brolga.h documents its interface and rules.
//
// It links neither a registry client nor libcontainer: what is slow happens in
// a process of its own.
package main

/*
#include "../../spank/brolga.h"
*/
import "C"

import (
	"errors"
	"fmt"
	"unsafe"

	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/step"
	"github.com/brolga-hpc/brolga/pkg/wire"
)

func main() {}

//export brolga_submit
func brolga_submit(message *C.brolga_byte, length C.size_t, reply *C.char, size C.size_t) C.int {
	return answer(reply, size, func() ([]wire.Record, error) {
		call, err := step.Parse(bytesOf(message, length))
		if err != nil {
			return nil, err
		}
		return submit(call)
	})
}

//export brolga_launch
func brolga_launch(message *C.brolga_byte, length C.size_t, reply *C.char, size C.size_t) C.int {
	return answer(reply, size, func() ([]wire.Record, error) {
		records, err := wire.Unmarshal(bytesOf(message, length))
		if err != nil {
			return nil, err
		}
		return launch(records)
	})
}

//export brolga_abi
func brolga_abi() C.int { return C.BROLGA_ABI }

func bytesOf(p *C.brolga_byte, length C.size_t) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(p)), int(length))
}

// answer runs f, keeps its panics from C, and writes what it returns to reply.
func answer(reply *C.char, size C.size_t, f func() ([]wire.Record, error)) (rc C.int) {
	buffer := unsafe.Slice((*byte)(unsafe.Pointer(reply)), int(size))
	defer func() {
		if r := recover(); r != nil {
			rc = refuse(buffer, fmt.Errorf("internal error: %v", r))
		}
	}()
	records, err := f()
	if err != nil {
		return refuse(buffer, err)
	}
	text, err := wire.Marshal(records)
	if err == nil && len(text) > len(buffer) {
		err = fmt.Errorf("internal error: answer of %d bytes", len(text))
	}
	if err != nil {
		return refuse(buffer, err)
	}
	fill(buffer, text)
	return 0
}

// refuse writes the error and its hint, cut so that both fit.
func refuse(buffer []byte, reason error) C.int {
	if errors.Is(reason, errDone) {
		fill(buffer, []byte("done=1\x00"))
		return -1
	}
	if errors.Is(reason, errReported) {
		fill(buffer, []byte("reported=1\x00"))
		return -1
	}
	limit := len(buffer)/2 - len("error=.")
	cut := func(s string) string { return s[:min(len(s), limit)] }
	records := []wire.Record{{Key: "error", Value: cut(fault.Line(reason))}}
	if hint := fault.Hint(reason); hint != "" {
		records = append(records, wire.Record{Key: "hint", Value: cut(hint)})
	}
	text, _ := wire.Marshal(records) // fault.Line leaves no NUL
	fill(buffer, text)
	return -1
}

func fill(buffer, text []byte) { clear(buffer[copy(buffer, text):]) }
