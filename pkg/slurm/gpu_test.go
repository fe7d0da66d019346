// SPDX-License-Identifier: Apache-2.0

package slurm

import (
	"reflect"
	"strings"
	"testing"
)

func TestGPUs(t *testing.T) {
	const cuda, rocr = "CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"
	mig := []GPU{{Index: 0, ID: "MIG-a"}, {Index: 3, Position: 1, ID: "MIG-b"}}
	for _, tt := range []struct {
		name string
		step uint32
		env  string
		want GPUs
		err  string
	}{
		{name: "none", env: "A=1"},
		{name: "none, in the job of a batch script that has some", env: "SLURM_JOB_GPUS=0,1 CUDA_VISIBLE_DEVICES=0,1"},
		{name: "none, though variables say so", env: "CUDA_VISIBLE_DEVICES=0 NVIDIA_VISIBLE_DEVICES=all"},
		{name: "by the node's numbers", env: "SLURM_STEP_GPUS=1,3 CUDA_VISIBLE_DEVICES=1,3 ROCR_VISIBLE_DEVICES=1,3",
			want: GPUs{[]GPU{{Index: 1}, {Index: 3, Position: 1}}, []GPUNumbers{{cuda, false}, {rocr, false}}}},
		{name: "by the step's numbers", env: "SLURM_STEP_GPUS=1,3 CUDA_VISIBLE_DEVICES=0,1",
			want: GPUs{[]GPU{{Index: 1}, {Index: 3, Position: 1}}, []GPUNumbers{{cuda, true}}}},
		{name: "both are the same", env: "SLURM_STEP_GPUS=0,1 CUDA_VISIBLE_DEVICES=0,1",
			want: GPUs{[]GPU{{Index: 0}, {Index: 1, Position: 1}}, []GPUNumbers{{cuda, true}}}},
		{name: "more than nine", env: "SLURM_STEP_GPUS=10,2", want: GPUs{List: []GPU{{Index: 2}, {Index: 10, Position: 1}}}},
		{name: "by names", env: "SLURM_STEP_GPUS=0,3 CUDA_VISIBLE_DEVICES=MIG-a,MIG-b", want: GPUs{List: mig}},
		{name: "a variable of the user's own", env: "SLURM_STEP_GPUS=2,3 HIP_VISIBLE_DEVICES=0 ZE_AFFINITY_MASK=3,2 GPU_DEVICE_ORDINAL=",
			want: GPUs{List: []GPU{{Index: 2}, {Index: 3, Position: 1}}}},
		{name: "a batch script", step: batchStep, env: "SLURM_JOB_GPUS=2 SLURM_STEP_GPUS=0", want: GPUs{List: []GPU{{Index: 2}}}},
		{name: "the shell of salloc", step: interactiveStep, env: "SLURM_JOB_GPUS=2", want: GPUs{List: []GPU{{Index: 2}}}},

		{name: "the user wants one by the node's number", env: "SLURM_STEP_GPUS=1,3 CUDA_VISIBLE_DEVICES=1,3 NVIDIA_VISIBLE_DEVICES=3",
			want: GPUs{[]GPU{{Index: 3, Position: 1}}, []GPUNumbers{{cuda, false}}}},
		{name: "the user wants one by the step's number", env: "SLURM_STEP_GPUS=1,3 CUDA_VISIBLE_DEVICES=0,1 NVIDIA_VISIBLE_DEVICES=0",
			want: GPUs{[]GPU{{Index: 1}}, []GPUNumbers{{cuda, true}}}},
		{name: "the user wants one by its name", env: "SLURM_STEP_GPUS=0,3 CUDA_VISIBLE_DEVICES=MIG-a,MIG-b NVIDIA_VISIBLE_DEVICES=MIG-b",
			want: GPUs{List: mig[1:]}},
		{name: "the user wants none", env: "SLURM_STEP_GPUS=0 NVIDIA_VISIBLE_DEVICES=none"},
		{name: "a word that many images set", env: "SLURM_STEP_GPUS=2 NVIDIA_VISIBLE_DEVICES=void", want: GPUs{List: []GPU{{Index: 2}}}},
		{name: "more than Slurm gave", env: "SLURM_STEP_GPUS=2 NVIDIA_VISIBLE_DEVICES=0,1,2,3", want: GPUs{List: []GPU{{Index: 2}}}},

		{name: "the user wants others", env: "SLURM_STEP_GPUS=2 NVIDIA_VISIBLE_DEVICES=0", err: `NVIDIA_VISIBLE_DEVICES="0": none of the step's GPUs`},
		{name: "no numbers", env: "SLURM_STEP_GPUS=a,../b", err: `SLURM_STEP_GPUS="a,../b": want numbers`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Step{StepID: tt.step, Tasks: 1, Env: strings.Fields(tt.env)}.GPUs()
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("GPUs = %+v, %v; want an error with %q", got, err, tt.err)
				}
				return
			}
			if err != nil || !reflect.DeepEqual(got, tt.want) {
				t.Fatalf("GPUs = %+v, %v; want %+v", got, err, tt.want)
			}
		})
	}
	if got, err := (Step{Env: []string{"SLURM_STEP_GPUS=0"}}).GPUs(); err != nil || got.List != nil {
		t.Errorf("GPUs where a step is submitted = %+v, %v; want none", got, err)
	}
}
