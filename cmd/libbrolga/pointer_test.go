// SPDX-License-Identifier: Apache-2.0

package main

import "unsafe"

// charPointer returns what C passes; tests cannot import "C" themselves.
func charPointer(buffer []byte) *_Ctype_char {
	return (*_Ctype_char)(unsafe.Pointer(unsafe.SliceData(buffer)))
}
