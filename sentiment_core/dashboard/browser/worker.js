// Both models in the visitor's browser: `model.json` beside this file says what to fetch, each file once (Cache API, by
// its content), and how to ask. Messages in: {ask: text} or {turn: text}, the newest counts. Out: {bytes} as they come,
// {ready}, {value} as the server's `answers.stream` has it, {failed: sentence}. Nothing is fetched after `ready`.
import * as ort from './runtime/ort.wasm.min.mjs';
import {Tokenizer} from './runtime/tokenizers.min.mjs';
import {cleaned, cutMiddle, dialValue, mostRows, rowsOf, traceValue} from './reading.js';

const CACHE = 'two-models', NO_MEMORY = 'This browser has too little free memory for the model, which takes about 500 MB. '
  + 'Please close other tabs, or try a computer.';
const NO_WASM = 'This browser cannot run the model: it lacks WebAssembly with SIMD. Please update it, or try another one.';
const SIMD = [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11];
const hex = (buffer) => [...new Uint8Array(buffer)].map((byte) => byte.toString(16).padStart(2, '0')).join('');
let about, session, tokenizer, latest = 0, work;

// ---- loading

const download = async (url, {name, bytes, sha256}, count) => {
  const response = await fetch(url).catch(() => ({ok: false, status: 'no connection'}));
  if (!response.ok) throw Error(`${name} could not be fetched (${response.status}). Please try again.`);
  const whole = new Uint8Array(bytes), reader = response.body.getReader();
  for (let at = 0, part; !(part = await reader.read()).done; at += part.value.length) {
    if (at + part.value.length > bytes) break;  // another file, which the checksum tells
    whole.set(part.value, at);
    count(part.value.length);
  }
  const found = self.crypto.subtle ? hex(await crypto.subtle.digest('SHA-256', whole)) : sha256;  // none without https
  if (found !== sha256) throw Error(`${name} arrived damaged or is of another version. Please reload the page.`);
  return whole;
};

const load = async () => {
  about = await (await fetch(new URL('model.json', import.meta.url))).json();
  const store = await self.caches?.open(CACHE).catch(() => null), files = {}, wanted = new Set();
  const count = (bytes) => postMessage({bytes});
  for (const file of about.files) {
    const url = new URL(`${file.name}?${file.sha256}`, import.meta.url).href, known = await store?.match(url);
    files[file.name] = known ? new Uint8Array(await known.arrayBuffer()) : await download(url, file, count);
    if (known) count(file.bytes); else await store?.put(url, new Response(files[file.name])).catch(() => {});
    wanted.add(url);
  }
  const old = (await store?.keys() ?? []).filter(({url}) => url.startsWith(new URL('.', import.meta.url)) && !wanted.has(url));
  await Promise.all(old.map((one) => store.delete(one)));
  const json = (name) => JSON.parse(new TextDecoder().decode(files[name]));
  tokenizer = new Tokenizer(json('tokenizer.json'), {});
  Object.assign(ort.env.wasm, {
    wasmBinary: files['runtime/ort-wasm-simd-threaded.wasm'].buffer, wasmPaths: new URL('runtime/', import.meta.url).href,
    numThreads: self.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency) : 1,
  });
  const externalData = ['base.bin', 'adapter.bin'].map((path) => ({path, data: files[path]}));
  session = await ort.InferenceSession.create(files['graph.onnx'], {externalData});
  const kept = new Float32Array(files['prefix.bin'].buffer), half = kept.length / 2;
  [0, 1].forEach((alpha) => prefixes.set(alpha, pastOf(kept.subarray(alpha * half, (alpha + 1) * half))));
  postMessage({ready: ort.env.wasm.numThreads});
};

// ---- passes

const prefixes = new Map();
const int = (numbers) => new ort.Tensor('int32', Int32Array.from(numbers), [numbers.length]);
const pastOf = (data) => {
  const [rows, heads, size] = about.past;
  return new ort.Tensor('float32', data, [rows, heads, data.length / (rows * heads * size), size]);
};
// The first tokens of a past
const upTo = ({dims: [rows, heads, length, size], data}, tokens) => {
  const part = (i) => data.subarray(i * length * size, (i * length + tokens) * size), kept = new Float32Array(rows * heads * tokens * size);
  for (let i = 0; i < rows * heads; i += 1) kept.set(part(i), i * tokens * size);
  return pastOf(kept);
};

// The same tokens behind the first `seen` ones of a past, once for each number in `seen`: their log-odds, and all keys
// and values
const pass = (tokens, seen, past, alpha) => {
  const each = tokens.length, places = Array.from({length: each * seen.length}, (_, i) => [Math.floor(i / each), i % each]);
  return session.run({
    ids: int(places.map(([, at]) => tokens[at])), positions: int(places.map(([copy, at]) => seen[copy] + at)),
    seen: int(places.map(([copy]) => seen[copy])), copy: int(places.map(([copy]) => copy)),
    last: int(seen.map((_, copy) => (copy + 1) * each - 1)), past, alpha: new ort.Tensor('float32', [alpha], [1]),
  });
};
const prefixOf = async (alpha) => {
  if (!prefixes.has(alpha)) prefixes.set(alpha, (await pass(about.prefix, [0], pastOf(new Float32Array()), alpha)).present);
  return prefixes.get(alpha);
};
const probabilities = ({log_odds}, alpha) =>
  Array.from(log_odds.data, (x) => 1 / (1 + Math.exp(-x / (1 + alpha * (about.temperature - 1)))));

// ---- answers

const encode = (text) => {
  const {ids, tokens} = tokenizer.encode(text), room = about.limit - about.prefix.length - about.suffix.length;
  const [shown, cut] = cutMiddle(ids, room, about.mark);
  return {tokens, shown, cut, row: [...shown, ...about.suffix]};
};

// P(positive) of a long review's beginning, then of all of it with its keys and values: {p, read, present}
async function* read({row, shown}, alpha) {
  let past = await prefixOf(alpha), done = 0;
  if (row.length > about.long) {
    done = about.first;
    const began = await pass([...row.slice(0, done), ...about.suffix], [about.prefix.length], past, alpha);
    past = upTo(began.present, about.prefix.length + done);
    yield {p: probabilities(began, alpha)[0], read: done / row.length};
  }
  const found = await pass(row.slice(done), [about.prefix.length + done], past, alpha);
  yield {p: probabilities(found, alpha)[0], read: 1, present: found.present};
}

async function* answers(given) {
  const text = cleaned(given, about.characters), review = encode(text), {say} = about, kept = {}, found = {};
  const length = about.prefix.length + review.row.length;
  for (const [actor, alpha] of [['fine', 1], ['base', 0]]) {
    const began = performance.now();
    for await (const {p, read: share, present} of read(review, alpha)) {
      const detail = `${((performance.now() - began) / 1000).toFixed(1)} s, ${length.toLocaleString('en')} tokens, in this browser`;
      kept[actor] = {p, present};
      yield {note: say.busy, [actor]: {p, read: share, cut: review.cut, detail}};
    }
  }
  const [ends, cuts] = rowsOf(text, review.tokens, review.shown.length, about.mark, mostRows(length));
  for (const [actor, alpha] of [['fine', 1], ['base', 0]]) {
    const {p, present} = kept[actor], seen = cuts.map((cut) => about.prefix.length + cut);
    const before = cuts.length ? probabilities(await pass(about.suffix, seen, present, alpha), alpha) : [];
    found[actor] = [...before, p];
    yield {trace: traceValue(text, ends, found, say)};
  }
  yield {dial: dialValue(given, kept.base.p, kept.fine.p, [], say)};
}

async function* dial(given, {base, fine}) {
  const review = encode(cleaned(given, about.characters)), between = [], {say} = about;
  const show = (note) => ({dial: {...dialValue(given, base.p, fine.p, between, say, !note), ...note}});
  if (review.shown.length > say.most) { yield show({note: say.long.replace('{}', review.shown.length)}); return; }
  yield show();
  for (const alpha of about.dial) {
    const found = await pass(review.row, [about.prefix.length], await prefixOf(alpha), alpha);
    between.push(...probabilities(found, alpha));
    yield show();
  }
}

let shown = {};
onmessage = ({data: {ask, turn}}) => {
  const mine = latest += 1;
  work = work.then(async () => {
    if (ask !== undefined) shown = {text: ask, run: about.run, note: about.say.busy, trace: {rows: []}};
    try {
      for await (const more of ask === undefined ? dial(turn, shown) : answers(ask)) {
        if (mine !== latest) return;
        postMessage({value: shown = {...shown, ...more}});
        await new Promise((done) => { setTimeout(done); });  // lets a newer message in
      }
    } catch (error) {
      postMessage({value: {...shown, note: 'No answer.', warn: error instanceof RangeError ? NO_MEMORY : error.message}});
    }
  });
};

work = (self.WebAssembly?.validate(new Uint8Array(SIMD)) ? load() : Promise.reject(Error(NO_WASM))).catch((error) => {
  const memory = error instanceof RangeError || /memory|alloc|abort/i.test(error.message);
  postMessage({failed: memory ? NO_MEMORY : error.message});
});
