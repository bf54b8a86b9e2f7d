/*
 * cli/completion.c: `h5lens completion bash|zsh`. In: the commands' usages, the key table and
 * the hook points; out: a script for the shell. What follows an option or a key is guessed
 * from its shape, as the help has it.
 */
#include "cli/cli_private.h"

/* --- words ----------------------------------------------------------------------------- */

static bool is_word(const char *s, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++) {
		if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-",
			    s[i]))
			return false;
	}
	return n && s[0] >= 'a' && s[0] <= 'z';
}

/* The words of s[0..n) that stand between separators. */
static void split(const char *s, size_t n, const char *separators,
		  void (*fn)(const char *word, size_t n))
{
	size_t at, k;

	for (at = 0; at < n; at += k + 1) {
		while (at < n && s[at] == ' ')
			at++;
		for (k = 0; at + k < n && !strchr(separators, s[at + k]); k++)
			;
		for (; k && s[at + k - 1] == ' '; k--)
			;
		if (is_word(s + at, k))
			fn(s + at, k);
		while (at + k < n && s[at + k] == ' ' && !strchr(separators, ' '))
			k++;
	}
}

/*
 * "none | [a grid, …] of: resid_pre attn_out", "default | [default, loss]": alternatives of one
 * word; those of a list, unless it is an example (…); and what follows "of:".
 */
void each_word(const char *shape, void (*fn)(const char *word, size_t n))
{
	const char *of = strstr(shape, "of: "), *s = shape;
	size_t n;

	for (;; s += n + 1) {
		n = strcspn(s, "|");
		while (n && *s == ' ') {
			s++;
			n--;
		}
		if (*s == '[' && !memmem(s, n, "…", strlen("…")))
			split(s + 1, strcspn(s + 1, "]"), ",", fn);
		else if (*s != '[')
			split(s, n, "", fn);
		if (!s[n])
			break;
	}
	if (of)
		split(of + 4, strlen(of + 4), " ", fn);
}

static void put_word(const char *word, size_t n)
{
	printf("%.*s ", (int)n, word);
}

/* Of a layer all: "blocks.*.attn.hook_q"; each within quotes, if there are to be any. */
static void put_hooks(const char *quote)
{
	int h;

	for (h = 0; h < LENS_HOOK_COUNT; h++) {
		const struct lens_hook_info *info = lens_hook_info((enum lens_hook)h);
		const char *rest = info->per_layer ? strstr(info->name, "%zu") : NULL;

		if (rest)
			printf("%sblocks.*%s%s ", quote, rest + 3, quote);
		else
			printf("%s%s%s ", quote, info->name, quote);
	}
}

static bool is_list(const char *shape)
{
	return strchr(shape, '[') != NULL;
}

static bool is_hooks(const char *name)
{
	return !strcmp(name, "--hooks") || !strcmp(name, "cache.hooks");
}

static bool takes_folder(const struct command *c)
{
	return !strcmp(c->name, "prompt") || !strcmp(c->name, "tokens") ||
	       !strcmp(c->name, "weights");
}

/* The words that may follow an option or a key. */
static void put_values(const char *name, const char *shape)
{
	if (is_hooks(name))
		put_hooks("");
	else
		each_word(shape, put_word);
}

/* --- bash ------------------------------------------------------------------------------- */

static void bash_options(const struct command *c, const struct usage *u)
{
	size_t i;

	printf("\t%s) options='", c->name);
	for (i = 0; i < u->n_options; i++)
		printf("%s ", u->option[i].name);
	printf("--help'%s ;;\n", takes_folder(c) ? " kind=-d" : "");
}

static void bash_value(const char *name, const char *shape)
{
	printf("\t%s) list=%s words='", name, is_list(shape) ? "yes" : "");
	put_values(name, shape);
	printf("' ;;\n");
}

static void bash_values(const struct command *c, const struct usage *u)
{
	size_t i;

	for (i = 0; i < u->n_options; i++) {
		const struct option_row *o = &u->option[i];

		/* Those of other commands mean what run's do, or a file, or tell their words.
		 */
		if (o->shape && strcmp(o->name, "--set") != 0 &&
		    (!strcmp(c->name, "run") || strchr(o->shape, '|')))
			bash_value(o->name, o->shape);
	}
}

static void put_command_name(const struct command *c, const struct usage *u)
{
	(void)u;
	printf("%s ", c->name);
}

static const char bash_begin[] =
	"\tesac\n}\n\n_h5lens() {\n"
	"\tlocal cur=${COMP_WORDS[COMP_CWORD]} name=${COMP_WORDS[COMP_CWORD-1]} before=\n"
	"\tlocal command=${COMP_WORDS[1]} options= kind=-f words= list= i\n"
	"\tCOMPREPLY=()\n"
	"\tif [ $COMP_CWORD = 1 ]; then\n"
	"\t\tCOMPREPLY=($(compgen -W '";
static const char bash_options_begin[] =
	"help --help --version' -- \"$cur\"))\n\t\treturn\n\tfi\n"
	"\t# --option=value and key=value are several words here\n"
	"\tif [ \"$cur\" = = ]; then cur=\n"
	"\telif [ \"$name\" = = ]; then name=${COMP_WORDS[COMP_CWORD-2]}\n\tfi\n"
	"\tcase $command in\n";
static const char bash_end[] =
	"' -- \"$cur\"))\n\t\tcompopt -o nospace 2> /dev/null\n\t\treturn\n\tfi\n"
	"\t[ \"$name\" = --model ] && kind=-d\n"
	"\t_h5lens_values \"$name\"\n"
	"\tif [ -n \"$list\" ] && [ -n \"$words\" ]; then\n"
	"\t\tcase $cur in *,*) before=${cur%,*}, ;; esac\n"
	"\t\tset -f\n\t\tfor i in $words; do\n"
	"\t\t\tcase $before$i in \"$cur\"*) COMPREPLY+=(\"$before$i\") ;; esac\n"
	"\t\tdone\n\t\tset +f\n"
	"\t\tcompopt -o nospace 2> /dev/null\n"
	"\telif [ -n \"$words\" ]; then COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n"
	"\telif [[ $cur == -* ]]; then COMPREPLY=($(compgen -W \"$options\" -- \"$cur\"))\n"
	"\telse\n\t\tlocal IFS=$'\\n'\n"
	"\t\tCOMPREPLY=($(compgen $kind -- \"$cur\"))\n"
	"\t\tcompopt -o filenames 2> /dev/null\n\tfi\n}\n"
	"complete -F _h5lens h5lens\n";

static void print_bash(void)
{
	size_t i, n;
	const struct lens_key *k = lens_keys(&n);

	printf("# bash completion of h5lens %s: made by `h5lens completion bash`\n"
	       "_h5lens_values() {\n\twords= list=\n\tcase $1 in\n",
	       LENS_VERSION);
	each_command(bash_values);
	for (i = 0; i < n; i++)
		bash_value(k[i].name, k[i].shape);
	fputs(bash_begin, stdout);
	each_command(put_command_name);
	fputs(bash_options_begin, stdout);
	each_command(bash_options);
	printf("\t*) return ;;\n\tesac\n"
	       "\tif [ \"$name\" = --set ]; then\n\t\tCOMPREPLY=($(compgen -S = -W '");
	for (i = 0; i < n; i++)
		printf("%s ", k[i].name);
	fputs(bash_end, stdout);
}

/* --- zsh -------------------------------------------------------------------------------- */

/* In single quotes, and within [help] and :message: of _arguments. */
static void zsh_text(const char *s)
{
	bool space = false;

	for (; *s; s++) {
		if (*s == '\n' || *s == ' ') {
			space = true;
			continue;
		}
		if (space)
			putchar(' ');
		space = false;
		if (*s == '\'')
			printf("'\\''");
		else if (strchr("[]:\\", *s))
			printf("\\%c", *s);
		else
			putchar(*s);
	}
}

static size_t n_words;

static void count_word(const char *word, size_t n)
{
	(void)word;
	(void)n;
	n_words++;
}

/* What completes a value: its words, folders or files. */
static void zsh_action(const char *name, const char *shape)
{
	n_words = 0;
	each_word(shape, count_word);
	if (!strcmp(name, "--set"))
		printf("_h5lens_set");
	else if (!strcmp(name, "--model"))
		printf("_files -/");
	else if (is_hooks(name)) /* patterns, which must not be expanded */
		printf("_h5lens_hooks");
	else if (!n_words)
		printf("_files");
	else {
		printf("_h5lens_%s ", is_list(shape) ? "list" : "words");
		each_word(shape, put_word);
	}
}

static void zsh_option(const char *name, const char *shape, const char *help)
{
	printf("\t\t'*%s[", name);
	zsh_text(help);
	printf("]");
	if (shape) {
		printf(":");
		zsh_text(shape);
		printf(":");
		zsh_action(name, shape);
	}
	printf("' \\\n");
}

static void zsh_options(const struct command *c, const struct usage *u)
{
	size_t i;

	printf("\t%s) _arguments \\\n", c->name);
	for (i = 0; i < u->n_options; i++) {
		const struct option_row *o = &u->option[i];
		const struct lens_key *k = o->help ? NULL : lens_key_of_flag(o->name);

		if (k || o->help) /* an old name has neither */
			zsh_option(o->name, o->shape, k ? k->help : o->help);
	}
	printf("\t\t'--help[this command]' '*:file:_files%s' ;;\n",
	       takes_folder(c) ? " -/" : "");
}

static void zsh_command(const struct command *c, const struct usage *u)
{
	(void)u;
	printf("\t\t'%s:", c->name);
	zsh_text(c->summary);
	printf("'\n");
}

static void print_zsh(void)
{
	size_t i, n;
	const struct lens_key *k = lens_keys(&n);

	printf("#compdef h5lens\n"
	       "# zsh completion of h5lens %s: made by `h5lens completion zsh`\n"
	       "_h5lens_words() { compadd -- ${argv:#-*} }\n"
	       "_h5lens_list() { compset -P '*,'; compadd -S '' -- ${argv:#-*} }\n"
	       "_h5lens_hooks() {\n\tlocal -a hooks=(",
	       LENS_VERSION);
	put_hooks("'");
	printf(")\n\tcompset -P '*,'\n\tcompadd -S '' -a hooks\n}\n"
	       "_h5lens_set() {\n"
	       "\tlocal key=${PREFIX%%%%=*}\n"
	       "\tif ! compset -P '*='; then\n\t\tcompadd -S = -- ");
	for (i = 0; i < n; i++)
		printf("%s ", k[i].name);
	printf("\n\t\treturn\n\tfi\n\tcase $key in\n");
	for (i = 0; i < n; i++) {
		printf("\t%s) ", k[i].name);
		zsh_action(k[i].name, k[i].shape);
		printf(" ;;\n");
	}
	printf("\tesac\n}\n\n_h5lens() {\n\tlocal -a commands=(\n");
	each_command(zsh_command);
	printf("\t\t'help:this help, or a command'\\''s'\n\t)\n"
	       "\tif (( CURRENT == 2 )); then\n\t\t_describe command commands\n\t\treturn\n\tfi\n"
	       "\tlocal command=$words[2]\n\tshift words\n\t(( CURRENT-- ))\n"
	       "\tcase $command in\n");
	each_command(zsh_options);
	printf("\t*) _files ;;\n\tesac\n}\n"
	       "if [ \"$funcstack[1]\" = _h5lens ]; then _h5lens \"$@\"; else compdef _h5lens h5lens; "
	       "fi\n");
}

int cmd_completion(int argc, char **argv)
{
	const struct usage u = {
		.synopsis = "h5lens completion bash|zsh",
		.description =
			"Prints a script that completes commands, options, keys behind --set, hook "
			"points,\n"
			"tables and files. For bash: source <(h5lens completion bash), in ~/.bashrc. "
			"For zsh:\n"
			"h5lens completion zsh > DIR/_h5lens, in a folder of $fpath, before compinit.",
		.least = 1,
		.most = 1,
	};
	const char *plain[1];
	int n, code = parse_args(&u, argc, argv, plain, &n);

	if (code >= 0)
		return code;
	if (!strcmp(plain[0], "bash"))
		print_bash();
	else if (!strcmp(plain[0], "zsh"))
		print_zsh();
	else
		return usage_error(&u, "completion is for bash or zsh, not '%s'", plain[0]);
	return EXIT_DONE;
}
