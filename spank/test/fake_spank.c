/* SPDX-License-Identifier: Apache-2.0 */
#include "fake_spank.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static char *no_environment[] = { NULL };

struct fake_spank fake = {
	.context = S_CTX_REMOTE,
	.job = 5,
	.nodes = 1,
	.tasks = 2,
	.uid = 1000,
	.gid = 1001,
	.env = no_environment,
};

/* ---- log ---- */

struct log {
	size_t length;
	char text[1 << 16];
};

static struct log *shared_log(void)
{
	static struct log *log;

	if (log)
		return log;
	log = mmap(NULL, sizeof(*log), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (log == MAP_FAILED)
		abort();
	return log;
}

const char *fake_log(void)
{
	return shared_log()->text;
}

static void log_line(const char *level, const char *format, va_list arguments)
{
	struct log *log = shared_log();
	size_t left = sizeof(log->text) - log->length;

	log->length += (size_t)snprintf(log->text + log->length, left, "%s: ", level);
	left = sizeof(log->text) - log->length;
	log->length += (size_t)vsnprintf(log->text + log->length, left, format, arguments);
	left = sizeof(log->text) - log->length;
	log->length += (size_t)snprintf(log->text + log->length, left, "\n");
}

#define LOG_FUNCTION(name, level)                   \
	void name(const char *format, ...)          \
	{                                           \
		va_list arguments;                  \
                                                    \
		va_start(arguments, format);        \
		log_line(level, format, arguments); \
		va_end(arguments);                  \
	}

LOG_FUNCTION(slurm_error, "error")
LOG_FUNCTION(slurm_info, "info")
LOG_FUNCTION(slurm_debug, "debug")
LOG_FUNCTION(slurm_spank_log, "spank")

/* ---- facts ---- */

void fake_refuse(spank_item_t item)
{
	fake.failing |= UINT64_C(1) << item;
}

spank_context_t spank_context(void)
{
	return fake.context;
}

spank_err_t spank_get_item(spank_t spank, spank_item_t item, ...)
{
	va_list arguments;
	spank_err_t rc = ESPANK_SUCCESS;

	(void)spank;
	if (fake.failing >> item & 1)
		return ESPANK_NOT_AVAIL;
	va_start(arguments, item);
	switch (item) {
	case S_JOB_ID:
		*va_arg(arguments, uint32_t *) = fake.job;
		break;
	case S_JOB_STEPID:
		*va_arg(arguments, uint32_t *) = fake.step;
		break;
	case S_JOB_NNODES:
		*va_arg(arguments, uint32_t *) = fake.nodes;
		break;
	case S_JOB_LOCAL_TASK_COUNT:
		*va_arg(arguments, uint32_t *) = fake.tasks;
		break;
	case S_JOB_NODEID:
		*va_arg(arguments, uint32_t *) = fake.node_id;
		rc = fake.node_id ? ESPANK_SUCCESS : ESPANK_NOT_AVAIL;
		break;
	case S_SLURM_RESTART_COUNT:
		*va_arg(arguments, uint32_t *) = fake.restart;
		rc = fake.restart ? ESPANK_SUCCESS : ESPANK_NOT_AVAIL;
		break;
	case S_JOB_UID:
		*va_arg(arguments, uid_t *) = fake.uid;
		break;
	case S_JOB_GID:
		*va_arg(arguments, gid_t *) = fake.gid;
		break;
	case S_TASK_ID:
		*va_arg(arguments, int *) = fake.task;
		break;
	case S_JOB_SUPPLEMENTARY_GIDS:
		*va_arg(arguments, gid_t **) = fake.groups;
		*va_arg(arguments, int *) = fake.group_count;
		break;
	case S_JOB_ARGV:
		*va_arg(arguments, int *) = fake.argc;
		*va_arg(arguments, char ***) = fake.argv;
		break;
	case S_JOB_ENV:
		*va_arg(arguments, char ***) = fake.env;
		break;
	default:
		rc = ESPANK_BAD_ARG;
	}
	va_end(arguments);
	return rc;
}

int slurm_load_node(time_t update_time, node_info_msg_t **answer, uint16_t flags)
{
	(void)update_time, (void)flags;
	if (!fake.cluster)
		return SLURM_ERROR;
	*answer = calloc(1, sizeof(**answer));
	if (!*answer)
		abort();
	(*answer)->node_array = fake.cluster;
	(*answer)->record_count = fake.cluster_size;
	return SLURM_SUCCESS;
}

void slurm_free_node_info_msg(node_info_msg_t *answer)
{
	free(answer);
}

/* ---- environment ---- */

#define VARIABLES_MAX 256

static struct {
	char *name;
	char *value; /* NULL: unset */
} variables[VARIABLES_MAX];

const char *fake_variable(const char *name)
{
	for (size_t i = 0; i < VARIABLES_MAX && variables[i].name; i++)
		if (strcmp(variables[i].name, name) == 0)
			return variables[i].value;
	return NULL;
}

static spank_err_t set_variable(const char *name, const char *value)
{
	size_t i = 0;

	while (i < VARIABLES_MAX && variables[i].name && strcmp(variables[i].name, name) != 0)
		i++;
	if (i == VARIABLES_MAX)
		return ESPANK_NOSPACE;
	free(variables[i].name);
	free(variables[i].value);
	variables[i].name = strdup(name);
	variables[i].value = value ? strdup(value) : NULL;
	return ESPANK_SUCCESS;
}

spank_err_t spank_setenv(spank_t spank, const char *name, const char *value, int overwrite)
{
	(void)spank;
	if (!overwrite && fake.kept_variable && strcmp(name, fake.kept_variable) == 0)
		return ESPANK_ENV_EXISTS;
	return set_variable(name, value);
}

spank_err_t spank_unsetenv(spank_t spank, const char *name)
{
	size_t length = strlen(name);

	(void)spank;
	for (char **entry = fake.env; *entry; entry++) {
		while (*entry && strncmp(*entry, name, length) == 0 && (*entry)[length] == '=')
			for (char **next = entry; *next; next++)
				next[0] = next[1];
		if (!*entry)
			break;
	}
	return set_variable(name, NULL);
}

/* Variables of the job's prologs are kept as "SPANK_NAME". */
static spank_err_t set_job_variable(const char *name, const char *value)
{
	char *full = NULL;
	spank_err_t rc;

	if (asprintf(&full, "SPANK_%s", name) < 0)
		return ESPANK_ERROR;
	rc = set_variable(full, value);
	free(full);
	return rc;
}

spank_err_t spank_job_control_setenv(spank_t spank, const char *name, const char *value,
				     int overwrite)
{
	(void)spank, (void)overwrite;
	return set_job_variable(name, value);
}

spank_err_t spank_job_control_unsetenv(spank_t spank, const char *name)
{
	(void)spank;
	return set_job_variable(name, NULL);
}

spank_err_t spank_getenv(spank_t spank, const char *name, char *buffer, int size)
{
	const char *set = fake_variable(name);
	size_t length = strlen(name);

	(void)spank;
	if (set)
		return snprintf(buffer, (size_t)size, "%s", set) < size ? ESPANK_SUCCESS
									: ESPANK_NOSPACE;
	for (char **entry = fake.env; *entry; entry++) {
		if (strncmp(*entry, name, length) != 0 || (*entry)[length] != '=')
			continue;
		if (snprintf(buffer, (size_t)size, "%s", *entry + length + 1) >= size)
			return ESPANK_NOSPACE;
		return ESPANK_SUCCESS;
	}
	return ESPANK_ENV_NOEXIST;
}

/* ---- options ---- */

spank_err_t spank_option_register(spank_t spank, struct spank_option *option)
{
	(void)spank;
	if (fake.refused_option && strcmp(option->name, fake.refused_option) == 0)
		return ESPANK_BAD_ARG;
	if (fake.option_count == 64)
		return ESPANK_NOSPACE;
	fake.options[fake.option_count++] = *option;
	return ESPANK_SUCCESS;
}

int fake_give(const char *option, const char *value)
{
	for (size_t i = 0; i < fake.option_count; i++)
		if (strcmp(fake.options[i].name, option) == 0)
			return fake.options[i].cb(fake.options[i].val, value,
						  fake.context == S_CTX_REMOTE);
	return -2;
}
