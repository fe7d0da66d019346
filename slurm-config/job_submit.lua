-- SPDX-License-Identifier: Apache-2.0
--
-- A job submit plugin that writes the image of each job into Slurm's records:
-- "scontrol show job" and "sacct --format=jobid,admincomment" show
--
--     AdminComment=image=docker.io/library/debian:12@sha256:4a...
--
-- To use it, set JobSubmitPlugins=lua in slurm.conf(5) and put this file beside it
-- as job_submit.lua; a site that has one already takes over record_image and calls
-- it. Slurm has to be built with Lua. A user's --comment is left alone.
--
-- What it records is what the user's sbatch, srun or salloc says of the image. It
-- is for accounting and support, and no proof of what ran.

-- Brolga leaves the image in the environment of the job's prologs.
local function image_of(job_desc)
	for _, entry in pairs(job_desc.spank_job_env or {}) do
		local image = string.match(entry, "^BROLGA_JOB_IMAGE=(.+)$")
		if image then
			return image
		end
	end
end

local function record_image(job_desc)
	local image = image_of(job_desc)
	if not image then
		return
	end
	local before = job_desc.admin_comment
	if before and before ~= "" then
		before = before .. "; "
	end
	job_desc.admin_comment = (before or "") .. "image=" .. image
end

function slurm_job_submit(job_desc, part_list, submit_uid)
	record_image(job_desc)
	return slurm.SUCCESS
end

function slurm_job_modify(job_desc, job_rec, part_list, modify_uid)
	return slurm.SUCCESS
end

return slurm.SUCCESS
