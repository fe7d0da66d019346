// SPDX-License-Identifier: Apache-2.0

package device

import (
	"fmt"
	"strings"
	"testing"

	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/request"
	"github.com/brolga-hpc/brolga/pkg/slurm"
)

// newNVIDIA returns a host with NVIDIA's driver and four GPUs, whose device files are
// in another order than they are on the bus.
func newNVIDIA(t *testing.T) tree {
	t.Helper()
	host := newTree(t)
	host.write("/proc/driver/nvidia/version", "NVRM version: 550.54\n")
	for i, minor := range []int{1, 0, 3, 2} {
		host.write(fmt.Sprintf("/proc/driver/nvidia/gpus/0000:%02x:00.0/information", 4+i),
			fmt.Sprintf("Model: \t\t X\nGPU UUID:   \t GPU-uuid-%d\nDevice Minor: \t %d\n", i, minor))
		host.write(fmt.Sprintf("/dev/nvidia%d", i), "")
	}
	for _, name := range []string{"nvidiactl", "nvidia-uvm", "nvidia-caps/nvidia-cap21", "nvidia-caps/nvidia-cap22"} {
		host.write("/dev/"+name, "")
	}
	at := "/proc/driver/nvidia/capabilities/gpu1/mig/gi2"
	host.write(at+"/access", "DeviceFileMinor: 21\nDeviceFileMode: 292\n")
	host.write(at+"/ci0/access", "DeviceFileMinor: 22\n")
	host.library("/usr/lib/libcuda.so.550.54", "libcuda.so.1")
	host.library("/usr/lib/libnvidia-ml.so.550.54", "libnvidia-ml.so.1")
	host.library("/usr/lib/libnvidia-encode.so.550.54", "libnvidia-encode.so.1")
	host.library("/usr/lib/libother.so.1", "libother.so.1")
	host.ldconfig("/usr/lib")
	host.link("/usr/lib/libcuda.so", "libcuda.so.1")
	host.ldconfig("/usr/lib")
	host.write("/usr/bin/nvidia-smi", "")
	host.write("/usr/bin/nvidia-cuda-mps-server", "")
	host.write("/run/nvidia-persistenced/socket", "")
	host.write("/lib/firmware/nvidia/550.54/gsp_ga10x.bin", "")
	return host
}

func TestNVIDIA(t *testing.T) {
	host := newNVIDIA(t)
	const ctl = "/dev/nvidiactl /dev/nvidiactl dev,/dev/nvidia-uvm /dev/nvidia-uvm dev"
	const firmware = "/lib/firmware/nvidia/550.54/gsp_ga10x.bin /lib/firmware/nvidia/550.54/gsp_ga10x.bin ro"
	const smi = "/usr/bin/nvidia-smi /usr/bin/nvidia-smi ro,/run/nvidia-persistenced/socket /run/nvidia-persistenced/socket ro"
	const mps = "/usr/bin/nvidia-cuda-mps-server /usr/bin/nvidia-cuda-mps-server ro"
	ml, cuda, encode := lib550("libnvidia-ml"), lib550("libcuda"), lib550("libnvidia-encode")
	node := func(n int) string { return fmt.Sprintf("/dev/nvidia%d /dev/nvidia%d dev", n, n) }
	for _, tt := range []struct {
		name, wanted, image string
		gpus                slurm.GPUs
		mounts, links       []string
	}{
		{name: "by index, in the order on the bus", wanted: "utility", gpus: gpus(0, 2),
			mounts: []string{ctl, node(1), node(3), firmware, smi, ml}, links: []string{"libnvidia-ml"}},
		{name: "by UUID", wanted: "video", gpus: slurm.GPUs{List: []slurm.GPU{{Index: 0, ID: "GPU-uuid-3"}}},
			mounts: []string{ctl, node(2), firmware, encode}, links: []string{"libnvidia-encode"}},
		{name: "a part of one", wanted: "utility", gpus: slurm.GPUs{List: []slurm.GPU{{Index: 5, ID: "MIG-GPU-uuid-0/2/0"}}},
			mounts: []string{ctl, node(1), "/dev/nvidia-caps/nvidia-cap21 /dev/nvidia-caps/nvidia-cap21 dev", "/dev/nvidia-caps/nvidia-cap22 /dev/nvidia-caps/nvidia-cap22 dev", firmware, smi, ml},
			links:  []string{"libnvidia-ml"}},
		{name: "the image says what it needs", image: "compute", gpus: gpus(1),
			mounts: []string{ctl, node(0), firmware, mps, cuda}, links: []string{"libcuda"}},
		{name: "the job says it, too", wanted: "utility", image: "compute", gpus: gpus(1),
			mounts: []string{ctl, node(0), firmware, smi, ml}, links: []string{"libnvidia-ml"}},
		{name: "nobody says anything", gpus: gpus(1),
			mounts: []string{ctl, node(0), firmware, smi, mps, cuda, ml}, links: []string{"libcuda", "libnvidia-ml"}},
		{name: "all", wanted: "all", gpus: gpus(1),
			mounts: []string{ctl, node(0), firmware, smi, mps, cuda, ml, encode}, links: []string{"libcuda", "libnvidia-ml", "libnvidia-encode"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			image := newImage(t)
			a := request.Accelerators{GPU: config.Default().GPU, GPUs: tt.gpus, Capabilities: tt.wanted}
			got, _, err := Hook{Root: host.dir}.inspect(t, image, a, "NVIDIA_VISIBLE_DEVICES=all", "NVIDIA_DRIVER_CAPABILITIES="+tt.image)
			if err != nil || len(got.Warnings) > 0 {
				t.Fatalf("Inspect: %v, warnings %q", err, got.Warnings)
			}
			checkSet(t, "mounts", short(got.Mounts, host.dir), strings.Split(strings.Join(tt.mounts, ","), ","))
			var want []string
			for _, name := range tt.links {
				want = append(want, "/usr/lib/"+name+".so.1 -> "+name+".so.550.54")
				if name == "libcuda" {
					want = append(want, "/usr/lib/libcuda.so -> libcuda.so.550.54")
				}
			}
			checkSet(t, "links", links(got), want)
		})
	}
}

func lib550(name string) string {
	return fmt.Sprintf("/usr/lib/%s.so.550.54 /usr/lib/%s.so.550.54 ro", name, name)
}

// checkSet compares without regard to order.
func checkSet(t *testing.T, what string, got, want []string) {
	t.Helper()
	count := map[string]int{}
	for _, line := range want {
		count[line]++
	}
	for _, line := range got {
		count[line]--
	}
	for line, n := range count {
		if n != 0 {
			t.Errorf("%s: %q is %d times too rare", what, line, n)
		}
	}
}

func TestNVIDIAErrors(t *testing.T) {
	host := newNVIDIA(t)
	for _, tt := range []struct {
		name string
		gpu  slurm.GPU
		err  string
		hint bool
	}{
		{"too few", slurm.GPU{Index: 4}, "Slurm gave the step GPU 4 , and NVIDIA's driver on this node has 4 others", false},
		{"another UUID", slurm.GPU{ID: "GPU-x"}, "Slurm gave the step GPU 0 GPU-x, and", false},
		{"a part by UUID", slurm.GPU{ID: "MIG-x"}, "the MIG device MIG-x, which can only be found in a CDI specification", true},
		{"a part that is gone", slurm.GPU{ID: "MIG-GPU-uuid-0/3/0"}, "the MIG device 3/0 of GPU 1, and this node has no device file for it", false},
		{"a part that climbs", slurm.GPU{ID: "MIG-GPU-uuid-0/../../../../../../etc/passwd"}, "this node has no device file for it", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := request.Accelerators{GPUs: slurm.GPUs{List: []slurm.GPU{tt.gpu}}}
			got, _, err := Hook{Root: host.dir}.inspect(t, newImage(t), a)
			if err == nil || !strings.Contains(err.Error(), tt.err) || (fault.Hint(err) != "") != tt.hint {
				t.Errorf("Inspect = %+v, %v; want %q", got, err, tt.err)
			}
		})
	}
}

func TestAMD(t *testing.T) {
	host := newTree(t)
	host.write("/dev/kfd", "")
	node := func(n, simd, render int) {
		host.write(fmt.Sprintf("/sys/class/kfd/kfd/topology/nodes/%d/properties", n), fmt.Sprintf("cpu_cores_count 0\nsimd_count %d\ndrm_render_minor %d\n", simd, render))
	}
	node(0, 0, 0) // a CPU
	node(2, 440, 130)
	node(3, 440, 128)
	node(10, 440, 129)
	for i, card := range []int{2, 3, 1} {
		host.write(fmt.Sprintf("/dev/dri/renderD%d", 128+i), "")
		host.write(fmt.Sprintf("/dev/dri/card%d", card), "")
		host.write(fmt.Sprintf("/sys/class/drm/renderD%d/device/drm/card%d/dev", 128+i, card), "")
	}
	h := Hook{Root: host.dir}
	got, _, err := h.inspect(t, newImage(t), request.Accelerators{GPUs: gpus(0, 2)})
	if err != nil {
		t.Fatal(err)
	}
	checkLines(t, "mounts", short(got.Mounts, host.dir), []string{
		"/dev/kfd /dev/kfd dev",
		"/dev/dri/renderD130 /dev/dri/renderD130 dev", "/dev/dri/card1 /dev/dri/card1 dev",
		"/dev/dri/renderD129 /dev/dri/renderD129 dev", "/dev/dri/card3 /dev/dri/card3 dev",
	})
	if _, _, err := h.inspect(t, newImage(t), request.Accelerators{GPUs: gpus(3)}); err == nil || err.Error() != "Slurm gave the step GPU 3, and AMD's driver on this node has 3" {
		t.Errorf("Inspect for a fourth GPU = %v; want that there is none", err)
	}
}

func TestNoDriver(t *testing.T) {
	a := request.Accelerators{GPU: config.Default().GPU, GPUs: gpus(0)}
	got, _, err := Hook{Root: t.TempDir()}.inspect(t, newImage(t), a)
	if err != nil || len(got.Mounts) > 0 || len(got.Warnings) != 1 || !strings.Contains(got.Warnings[0], "the step's GPUs are not shown: this node has no CDI specification for nvidia.com/gpu") {
		t.Errorf("Inspect = %+v, %v; want a warning", got, err)
	}
	a.Capabilities = "utility,cuda"
	got, _, err = Hook{Root: newNVIDIA(t).dir}.inspect(t, newImage(t), a)
	if err != nil || len(got.Warnings) != 1 || !strings.Contains(got.Warnings[0], `NVIDIA_DRIVER_CAPABILITIES: "cuda" is not one of compute,`) {
		t.Errorf("Inspect with an unknown part = %+v, %v; want a warning", got, err)
	}
}
