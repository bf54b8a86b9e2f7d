/*
 * cli/common.c: errors, signals and small formats for all commands.
 */
#include "cli/cli_private.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/wait.h>
#include <unistd.h>

static atomic_int stop;

static void on_signal(int sig)
{
	(void)sig;
	atomic_store(&stop, 1);
}

const atomic_int *catch_signals(void)
{
	struct sigaction sa, hangup;

	memset(&sa, 0, sizeof(sa));
	sa.sa_handler = on_signal;
	sa.sa_flags = (int)SA_RESETHAND; /* a second one ends the program at once */
	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGUSR1, &sa, NULL);
	sigaction(SIGUSR2, &sa, NULL);
	signal(SIGXFSZ, SIG_IGN); /* so that a write fails with EFBIG instead */
	/* The terminal was closed; under nohup this is ignored. */
	if (!sigaction(SIGHUP, NULL, &hangup) && hangup.sa_handler != SIG_IGN)
		sigaction(SIGHUP, &sa, NULL);
	return &stop;
}

int exit_code(enum lens_status st)
{
	switch (st) {
	case LENS_OK:
		return EXIT_DONE;
	case LENS_ERR_INVALID:
		return EXIT_USAGE;
	case LENS_ERR_INTERRUPTED:
	case LENS_ERR_NOSPACE:
	case LENS_ERR_BUSY:
	case LENS_ERR_UNFINISHED:
		return EXIT_RESUMABLE;
	default:
		return EXIT_FAILED;
	}
}

int fail(const struct lens_error *err)
{
	char text[3072];

	fflush(stdout);
	fprintf(stderr, "h5lens: %s\n", lens_error_format(err, text, sizeof(text)));
	return exit_code(err->code);
}

enum lens_status push_bos(struct lens_tokenizer *tok, const char *choice, struct lens_ids *ids,
			  struct lens_error *err)
{
	struct lens_buf doubt = LENS_BUF_INIT;
	enum lens_status st;
	int32_t id;

	LENS_TRY(lens_tokenizer_choose_bos(tok, choice, err));
	LENS_TRY(lens_tokenizer_bos(tok, &id, err));
	st = lens_tokenizer_bos_doubt(tok, &doubt, err);
	if (st == LENS_OK && doubt.len)
		fprintf(stderr, "h5lens: warning: %s: choose with --bos-token\n",
			visible(doubt.data, doubt.len));
	lens_buf_release(&doubt);
	return st == LENS_OK ? lens_ids_push(ids, id, err) : st;
}

int fail_output(const char *output, struct lens_error *err)
{
	struct lens_sweep_status sweep;

	if (!lens_file_exists(output) &&
	    lens_sweep_status_read(output, &sweep, NULL, NULL, NULL) == LENS_OK) {
		lens_error_add(err, "; it is not finished: see h5lens status %s", output);
		lens_sweep_status_release(&sweep);
	}
	return fail(err);
}

enum lens_status spaced(const char *answer, bool as_it_is, struct lens_buf *out,
			struct lens_error *err)
{
	const char *space = as_it_is || *answer == ' ' || !*answer ? "" : " ";

	return lens_buf_printf(out, err, "%s%s", space, answer);
}

const char *plural(size_t n)
{
	return n == 1 ? "" : "s";
}

const char *human_bytes(double n, char *buf)
{
	static const char *const unit[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB" };
	size_t i = 0;

	while (n >= 1024 && i < 5) {
		n /= 1024;
		i++;
	}
	snprintf(buf, 32, i ? "%.1f %s" : "%.0f %s", n, unit[i]);
	return buf;
}

const char *human_time(double seconds, char *buf)
{
	if (seconds < 120)
		snprintf(buf, 32, "%.0f s", seconds < 1 ? 1 : seconds);
	else if (seconds < 7200)
		snprintf(buf, 32, "%.0f min", seconds / 60);
	else
		snprintf(buf, 32, "%.1f h", seconds / 3600);
	return buf;
}

const char *visible(const char *s, size_t n)
{
	static char ring[4][520];
	static unsigned turn;
	char *out = ring[turn++ % 4];
	size_t i, at = 0;

	for (i = 0; i < n && at < sizeof(ring[0]) - 16; i++) {
		unsigned char c = (unsigned char)s[i];

		if (c == '\n')
			at += (size_t)sprintf(out + at, "\\n");
		else if (c == '\t')
			at += (size_t)sprintf(out + at, "\\t");
		else if (c < 0x20 || c == 0x7f)
			at += (size_t)sprintf(out + at, "\\x%02x", c);
		else
			out[at++] = (char)c;
	}
	/* Never end in the middle of a character. */
	while (i < n && at && ((unsigned char)out[at - 1] & 0xc0) == 0x80)
		at--;
	if (i < n && at && (unsigned char)out[at - 1] >= 0xc0)
		at--;
	snprintf(out + at, 4, "%s", i < n ? "…" : "");
	return out;
}

static void print_number(const char *label, double v, const char *fmt)
{
	printf("  %-34s", label);
	if (isnan(v))
		printf("-\n");
	else {
		printf(fmt, v);
		printf("\n");
	}
}

void print_summary(const struct lens_summary *s)
{
	size_t i;

	printf("results\n  %-34s%zu\n", "prompts", s->n_prompts);
	if (s->n_answers > 1) {
		print_number(s->any_tokens ? "log probability difference > 0"
					   : "logit difference > 0",
			     100 * s->logit_diff_positive, "%.1f %%");
		print_number(s->any_tokens ? "mean log probability difference"
					   : "mean logit difference",
			     s->logit_diff_mean, "%.3f");
	}
	if (s->n_answers)
		print_number(s->any_tokens ? "answer's tokens are all on top"
					   : "answer is the top token",
			     100 * s->top1, "%.1f %%");
	if (s->has_loss)
		print_number("mean loss, nats a token", s->loss_mean, "%.4f");
	for (i = 0; i < s->n_layers; i++) {
		char label[64];

		snprintf(label, sizeof(label), "median rank, %s", s->layer[i]);
		print_number(label, s->median_rank[i], "%.10g");
	}
	if (s->n_flagged)
		printf("  %-34s%zu\n", "prompts with non-finite logits", s->n_flagged);
}

void print_version(void)
{
	struct lens_error err = LENS_ERROR_INIT;
	enum lens_cpu_level level;

	printf("h5lens %s\n", LENS_VERSION);
	printf("HDF5 %s\n", lens_store_hdf5_version());
	if (lens_cpu_detect(&level, &err) == LENS_OK &&
	    lens_kernels_open(level, &err) == LENS_OK)
		printf("%s\ncpu level %s, threads %zu\n", lens_blas_description(),
		       lens_cpu_level_name(level), lens_thread_count(0));
	else
		fail(&err);
}

/*
 * HDF5 1.10 can crash on a damaged file. So files of unknown state are read in a child
 * process, and a crash is a result.
 */
int guarded(int (*read_file)(const char *path, const void *args), const char *path,
	    const void *args)
{
	int status;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (pid < 0)
		return read_file(path, args);
	if (!pid) {
		int code = read_file(path, args);

		fflush(stdout);
		_exit(ferror(stdout) && !code ? EXIT_FAILED : code);
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (WIFEXITED(status))
		return WEXITSTATUS(status);
	if (WTERMSIG(status) == SIGPIPE) /* the reader of our output has ended: `| head` */
		raise(SIGPIPE);
	fprintf(stderr, "h5lens: %s: damaged: reading it failed with signal %d\n", path,
		WTERMSIG(status));
	return EXIT_FAILED;
}
