/*
 * The list of prompts and the attention view of report.py's page. In: the JSON in #data; texts go into the page
 * through textContent alone. Lists are moved through with the arrow keys: one of their buttons takes part in Tab.
 */
'use strict';

const DATA = JSON.parse(document.getElementById('data').textContent);

/* An element with attributes and children; a property of the element itself begins with a dot. */
function make(tag, attributes = {}, ...children) {
	const e = document.createElement(tag);
	for (const [k, v] of Object.entries(attributes)) {
		if (k[0] === '.')
			e[k.slice(1)] = v;
		else
			e.setAttribute(k, v);
	}
	e.append(...children);
	return e;
}

const number = new Intl.NumberFormat('en', { maximumSignificantDigits: 5, useGrouping: false });

function shown(value) {
	if (value === null)
		return '–';
	return typeof value === 'number' ? number.format(value).replace('-', '−') : value;
}

/* --- the list ---------------------------------------------------------------------- */

const PAGE = 25;

function promptList(root, columns) {
	const n = columns[0].values.length;
	const table = columns.filter(c => !c.more), more = columns.filter(c => c.more);
	const texts = Array.from({ length: n }, (_, r) => columns.map(c => shown(c.values[r])).join('\n').toLowerCase());
	const state = { order: [], by: null, down: false, page: 0, open: new Set() };

	const search = make('input', { type: 'search', id: 'search', autocomplete: 'off' });
	const count = make('span', { 'aria-live': 'polite', id: 'count' });
	const back = make('button', { type: 'button', id: 'back' }, '← previous');
	const next = make('button', { type: 'button', id: 'next' }, 'next →');
	const body = make('tbody');
	const heads = table.map(c => {
		const button = make('button', { type: 'button' }, c.name);
		const th = make('th', { scope: 'col', 'aria-sort': 'none' }, button);
		button.addEventListener('click', () => {
			state.down = state.by === c ? !state.down : false;
			state.by = c;
			state.page = 0;
			for (const h of heads)
				h.setAttribute('aria-sort', 'none');
			th.setAttribute('aria-sort', state.down ? 'descending' : 'ascending');
			select();
		});
		return th;
	});

	function compare(a, b) {
		const x = state.by.values[a], y = state.by.values[b];
		if (x === null || y === null)
			return (x === null) - (y === null) || a - b;
		const d = typeof x === 'number' ? x - y : x < y ? -1 : x > y ? 1 : 0;
		return (state.down ? -d : d) || a - b;
	}

	function select() {
		const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
		state.order = [];
		for (let r = 0; r < n; r++) {
			if (words.every(w => texts[r].includes(w)))
				state.order.push(r);
		}
		if (state.by)
			state.order.sort(compare);
		draw();
	}

	function row(r) {
		const open = state.open.has(r);
		const toggle = make('button', { type: 'button', class: 'open', 'aria-expanded': open, 'aria-label': `more of row ${r}` }, open ? '▾' : '▸');
		const cells = table.map(c => {
			const text = make('div', { dir: 'auto' }, shown(c.values[r]));
			return make('td', { class: c.kind + (c.name === 'prompt' ? ' prompt' : '') }, text);
		});
		const tr = make('tr', { 'data-row': r }, make('td', {}, toggle), ...cells);
		const all = [tr];
		if (open) {
			const list = make('dl', {}, ...more.flatMap(c => [make('dt', {}, c.name), make('dd', { dir: 'auto' }, shown(c.values[r]))]));
			all.push(make('tr', { class: 'more' }, make('td', { colspan: table.length + 1 }, list)));
		}
		toggle.addEventListener('click', () => {
			state.open[open ? 'delete' : 'add'](r);
			draw();
			body.querySelector(`tr[data-row="${r}"] .open`).focus();
		});
		return all;
	}

	function draw() {
		const pages = Math.max(1, Math.ceil(state.order.length / PAGE));
		state.page = Math.min(state.page, pages - 1);
		const from = state.page * PAGE, some = state.order.slice(from, from + PAGE);
		body.replaceChildren(...some.flatMap(row));
		const range = some.length ? `${from + 1} to ${from + some.length} of ` : '';
		count.textContent = `${range}${state.order.length} prompts` + (state.order.length < n ? ` (of ${n})` : '');
		back.disabled = state.page === 0;
		next.disabled = state.page === pages - 1;
	}

	search.addEventListener('input', () => { state.page = 0; select(); });
	back.addEventListener('click', () => { state.page--; draw(); });
	next.addEventListener('click', () => { state.page++; draw(); });
	const nothing = make('th', {}, make('span', { class: 'skip' }, 'more'));
	const element = make('table', {}, make('thead', {}, make('tr', {}, nothing, ...heads)), body);
	root.replaceChildren(
		make('div', { class: 'bar' }, make('label', { for: 'search' }, 'Search'), search, count, back, next),
		make('div', { class: 'scroll', tabindex: 0, role: 'group', 'aria-label': 'list of prompts' }, element));
	select();
}

/* --- attention ---------------------------------------------------------------------- */

/* The weights of a view: of(layer, head, query) is the part of the bytes up to the query's own place. */
class Weights {
	constructor(view, heads) {
		const text = atob(view.data);
		this.bytes = Uint8Array.from(text, c => c.charCodeAt(0));
		this.starts = [];
		this.size = 0;
		for (const at of view.at) {
			this.starts.push(this.size);
			this.size += at + 1;
		}
		this.at = view.at;
		this.heads = heads;
	}

	of(layer, head, q) {
		const from = (layer * this.heads + head) * this.size + this.starts[q];
		return this.bytes.subarray(from, from + this.at[q] + 1);
	}
}

/* The page's colour of a name, as three numbers. */
function rgb(name) {
	const text = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
	if (text[0] === '#')
		return [1, 3, 5].map(i => parseInt(text.slice(i, i + 2), 16));
	return text.split(',').map(Number);
}

/* A head's pattern, a pixel a weight. */
function paint(canvas, view, weights, layer, head) {
	const width = view.tokens.length, height = view.at.length;
	canvas.width = width;
	canvas.height = height;
	const context = canvas.getContext('2d'), image = context.createImageData(width, height);
	const low = rgb('--page'), high = rgb('--from'), blank = rgb('--blank');
	for (let q = 0; q < height; q++) {
		const w = weights.of(layer, head, q);
		for (let k = 0; k < width; k++) {
			const at = 4 * (q * width + k), t = k < w.length ? w[k] / 255 : 0;
			for (let c = 0; c < 3; c++)
				image.data[at + c] = k < w.length ? low[c] + t * (high[c] - low[c]) : blank[c];
			image.data[at + 3] = 255;
		}
	}
	context.putImageData(image, 0, 0);
}

/* Arrow keys among the buttons of a grid, so many in a row; only the chosen one takes part in Tab. */
function arrows(root, columns, choose) {
	root.addEventListener('keydown', e => {
		const buttons = [...root.querySelectorAll('button')], i = buttons.indexOf(document.activeElement);
		const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns(), ArrowUp: -columns(), Home: -i, End: buttons.length - 1 - i }[e.key];
		if (step === undefined || i < 0)
			return;
		e.preventDefault();
		const to = buttons[i + step];
		if (to) {
			to.focus();
			choose(to);
		}
	});
}

function percent(w) {
	return w / 255 >= 0.0995 ? `${Math.round(100 * w / 255)} %` : `${(100 * w / 255).toFixed(1)} %`;
}

function attentionView(root, data) {
	const state = { view: 0, layer: Math.max(0, data.layers.indexOf(data.picked[0])), head: data.picked[1], token: null };
	let view, weights;
	const choice = make('select', { id: 'which' }, ...data.views.map((v, i) => make('option', { value: i }, v.label)));
	const heads = make('div', { class: 'heads', role: 'group', 'aria-label': 'heads: a layer a row' });
	const title = make('h3', { 'aria-live': 'polite', id: 'head' });
	const note = make('p', { class: 'note' });
	const tokens = make('div', { class: 'tokens', role: 'group', 'aria-label': 'tokens' });
	const said = make('div', { class: 'said', 'aria-live': 'polite', id: 'said' });
	const matrix = make('canvas', { id: 'matrix', role: 'img' });
	const names = data.answers.map((name, i) => make('span', { class: `mark${i}` }, name));

	/* In a group's pictures a cell is as wide as fits, within reason. */
	function drawHeads() {
		const side = Math.max(18, Math.min(64, Math.floor((Math.min(root.clientWidth, 620) - 30) / data.heads) - 6));
		const high = Math.max(14, Math.min(side, Math.round(side * view.at.length / view.tokens.length)));
		heads.style.gridTemplateColumns = `1.6rem repeat(${data.heads}, ${side + 4}px)`;
		const cells = [make('span'), ...Array.from({ length: data.heads }, (_, h) => make('span', {}, String(h)))];
		data.layers.forEach((number, layer) => {
			cells.push(make('span', {}, String(number)));
			for (let h = 0; h < data.heads; h++) {
				const canvas = make('canvas', { 'aria-hidden': true });
				const b = make('button', { type: 'button', 'data-layer': layer, 'data-head': h, 'aria-label': `layer ${number} head ${h}`, title: `${number}.${h}` }, canvas);
				b.style.width = `${side + 4}px`;
				b.style.height = `${high + 4}px`;
				paint(canvas, view, weights, layer, h);
				cells.push(b);
			}
		});
		heads.replaceChildren(...cells);
	}

	function markHead() {
		for (const b of heads.querySelectorAll('button')) {
			const on = Number(b.dataset.layer) === state.layer && Number(b.dataset.head) === state.head;
			b.setAttribute('aria-pressed', on);
			b.tabIndex = on ? 0 : -1;
		}
		const number = data.layers[state.layer], [layer, head, why] = data.picked;
		title.textContent = `Layer ${number} head ${state.head}`;
		note.textContent = number === layer && state.head === head && why ? `Shown first: ${why}.` : '';
	}

	function drawTokens() {
		tokens.replaceChildren(...view.tokens.flatMap((t, i) => {
			const mark = view.marks[i] === undefined ? '' : `m${view.marks[i]}`;
			const b = make('button', { type: 'button', class: mark, dir: 'auto', 'data-token': i, tabindex: -1 }, t);
			return t.includes('↵') ? [b, make('br')] : [b];
		}));
		tokens.querySelector(`[data-token="${state.token}"]`).tabIndex = 0;
	}

	/* Where token i looks, and who looks at it: [position, weight] from the largest on. */
	function looks(i) {
		const q = view.at.indexOf(i);
		const out = q < 0 ? [] : [...weights.of(state.layer, state.head, q)].map((w, k) => [k, w]);
		const into = view.at.map((at, k) => [at, at >= i ? weights.of(state.layer, state.head, k)[i] : 0]);
		return [out, into].map(l => l.filter(p => p[1] > 0).sort((a, b) => b[1] - a[1] || a[0] - b[0]));
	}

	function markTokens() {
		const i = state.token, [out, into] = looks(i), to = new Map(out), from = new Map(into);
		for (const b of tokens.querySelectorAll('button')) {
			const k = Number(b.dataset.token);
			b.style.backgroundColor = to.get(k) ? `rgba(var(--from), ${(to.get(k) / 255 * 0.85).toFixed(3)})` : '';
			b.style.borderBottomColor = from.get(k) ? `rgba(var(--to), ${Math.sqrt(from.get(k) / 255).toFixed(3)})` : '';
			b.classList.toggle('here', k === i);
			b.tabIndex = k === i ? 0 : -1;
		}
		const list = l => l.slice(0, 6).map(([k, w]) => `${view.tokens[k]} (${k}) ${percent(w)}`).join(', ') || 'nothing';
		const name = make('bdi', {}, view.tokens[i]);
		const where = view.at.includes(i) ? `looks at: ${list(out)}` : 'is no stored query: where it looks is not in the file';
		said.replaceChildren(make('div', {}, name, ` (token ${i}) ${where}`), make('div', {}, `is looked at by: ${list(into)}`));
		drawMatrix();
	}

	/* The head, large: cells, tokens on both sides where there is room, the chosen token's row and column. */
	function drawMatrix() {
		const room = Math.max(240, Math.min(matrix.parentElement.clientWidth, 900)), scale = window.devicePixelRatio || 1;
		const n = view.tokens.length, size = 12;
		const context = matrix.getContext('2d');
		context.font = `${size}px system-ui, sans-serif`;
		const label = Math.min(110, Math.max(...view.tokens.map(t => context.measureText(t).width)) + 8);
		const cell = Math.max(2, Math.min(26, Math.floor((room - label) / n)));
		const width = label + cell * n, height = cell * view.at.length + label;
		matrix.width = width * scale;
		matrix.height = height * scale;
		matrix.style.width = `${width}px`;
		matrix.style.height = `${height}px`;
		matrix.geometry = { label, cell };
		context.scale(scale, scale);
		const pixels = make('canvas');
		paint(pixels, view, weights, state.layer, state.head);
		context.imageSmoothingEnabled = false;
		context.drawImage(pixels, label, 0, cell * n, cell * view.at.length);
		labels(context, label, cell, Math.min(size, Math.max(7, cell - 1)));
		const ink = getComputedStyle(matrix).getPropertyValue('--focus'), q = view.at.indexOf(state.token);
		context.strokeStyle = ink;
		context.lineWidth = 1.5;
		if (q >= 0)
			context.strokeRect(label, q * cell, cell * (state.token + 1), cell);
		context.strokeRect(label + state.token * cell, Math.max(0, q) * cell, cell, cell * (view.at.length - Math.max(0, q)));
		matrix.setAttribute('aria-label', `attention of layer ${data.layers[state.layer]} head ${state.head}, a query a row, a key a column`);
	}

	function labels(context, label, cell, size) {
		const step = Math.max(1, Math.ceil((size + 1) / cell)), mine = getComputedStyle(matrix);
		context.font = `${size}px system-ui, sans-serif`;
		context.textBaseline = 'middle';
		context.textAlign = 'right';
		const put = (i, x, y, turn) => {
			context.fillStyle = mine.getPropertyValue(i === state.token ? '--focus' : '--ink');
			context.save();
			context.translate(x, y);
			context.rotate(turn);
			context.fillText(view.tokens[i], 0, 0, label - 6);
			context.restore();
		};
		view.at.forEach((at, q) => {
			if ((view.at.length - 1 - q) % step === 0)
				put(at, label - 4, (q + 0.5) * cell, 0);
		});
		for (let k = view.tokens.length - 1; k >= 0; k -= step)
			put(k, label + (k + 0.5) * cell, view.at.length * cell + 4, -Math.PI / 2);
	}

	function chooseHead(b) {
		state.layer = Number(b.dataset.layer);
		state.head = Number(b.dataset.head);
		markHead();
		markTokens();
	}

	function chooseToken(b) {
		state.token = Number(b.dataset.token);
		markTokens();
	}

	function chooseView(i) {
		state.view = i;
		view = data.views[i];
		weights = new Weights(view, data.heads);
		state.token = view.at[view.at.length - 1];
		drawHeads();
		markHead();
		drawTokens();
		markTokens();
		group.textContent = view.note;
	}

	function redraw() {
		drawHeads();
		markHead();
		markTokens();
	}

	const group = make('p', { class: 'note' }), small = make('div', { class: 'small' }, heads);
	const legend = make('p', { class: 'note' }, 'Of the framed token: ', make('span', { class: 'key from' }), ' where it looks; ',
		make('span', { class: 'key to' }), ' who looks at it', ...(names.length ? ['. Answers: ', ...names.flatMap((e, i) => i ? [', ', e] : [e])] : []), '.');
	root.replaceChildren(
		make('div', { class: 'bar' }, make('label', { for: 'which' }, 'Prompt or group'), choice), group,
		make('div', { class: 'view' }, small,
			make('div', { class: 'large' }, title, note, legend, tokens, said, make('div', { class: 'scroll' }, matrix))));

	choice.addEventListener('change', () => chooseView(Number(choice.value)));
	heads.addEventListener('click', e => { const b = e.target.closest('button'); if (b) chooseHead(b); });
	for (const what of ['click', 'mouseover', 'focusin'])
		tokens.addEventListener(what, e => { const b = e.target.closest('button'); if (b) chooseToken(b); });
	matrix.addEventListener('mousemove', e => {
		const { label, cell } = matrix.geometry, q = Math.floor(e.offsetY / cell);
		if (e.offsetX > label && q < view.at.length && view.at[q] !== state.token) {
			state.token = view.at[q];
			markTokens();
		}
	});
	arrows(heads, () => data.heads, chooseHead);
	arrows(tokens, () => 1, chooseToken);
	matchMedia('(prefers-color-scheme: dark)').addEventListener('change', redraw);
	let waiting;
	window.addEventListener('resize', () => { clearTimeout(waiting); waiting = setTimeout(redraw, 150); });
	chooseView(0);
	small.scrollTop = heads.querySelector('[aria-pressed=true]').offsetTop - small.offsetTop - small.clientHeight / 2;
}

promptList(document.getElementById('list'), DATA.columns);
if (DATA.attention)
	attentionView(document.getElementById('view'), DATA.attention);
