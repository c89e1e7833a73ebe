// Both models in the visitor's browser: `model.json` beside this file says what to fetch, each file once (Cache API, by
// its content), and how to ask. Messages in: {ask: text} or {turn: text}, the newest counts. Out: {bytes} as they come,
// {ready}, {value} as the server's `answers.stream` has it, {failed: sentence}. Nothing is fetched after `ready`.
import * as wasm from './runtime/ort.wasm.min.mjs';
import {Tokenizer} from './runtime/tokenizers.min.mjs';
import {cleaned, cutMiddle, mostRows, rowsOf, traceValue} from './reading.js';

const CACHE = 'two-models', NO_MEMORY = 'This browser has too little free memory for the model, which takes about 500 MB. '
  + 'Please close other tabs, or try a computer.';
const NO_WASM = 'This browser cannot run the model, for want of WebAssembly with SIMD. Please update it, or try another.';
const hex = (buffer) => [...new Uint8Array(buffer)].map((byte) => byte.toString(16).padStart(2, '0')).join('');
let ort = wasm, about, session, tokenizer, latest = 0, work;

// ---- loading

const download = async (url, {name, bytes, sha256}, count) => {
  const response = await fetch(url).catch(() => ({ok: false, status: 'no connection'}));
  if (!response.ok) throw Error(`${name} could not be fetched (${response.status}). Please try again.`);
  const counted = new TransformStream({transform: (part, to) => { count(part.length); to.enqueue(part); }});
  const whole = new Uint8Array(await new Response(response.body.pipeThrough(counted)).arrayBuffer());
  const found = self.crypto.subtle ? hex(await crypto.subtle.digest('SHA-256', whole)) : sha256;  // none without https
  if (found !== sha256 || whole.length !== bytes) throw Error(`${name} arrived damaged or is of another version. Please reload the page.`);
  return whole;
};

const load = async () => {
  about = await (await fetch(new URL('model.json', import.meta.url))).json();
  const store = await self.caches?.open(CACHE).catch(() => null), wanted = new Set(), folder = new URL('.', import.meta.url).href;
  const get = async (file) => {
    const url = `${folder}${file.name}?${file.sha256}`, known = await store?.match(url), count = (bytes) => postMessage({bytes});
    const whole = known ? new Uint8Array(await known.arrayBuffer()) : await download(url, file, count);
    if (known) count(file.bytes); else await store?.put(url, new Response(whole)).catch(() => {});
    wanted.add(url);
    return whole;
  };
  const files = {};
  for (const file of about.files) files[file.name] = await get(file);
  tokenizer = new Tokenizer(JSON.parse(new TextDecoder().decode(files['tokenizer.json'])), {});
  const kept = new Float32Array(files['prefix.bin'].buffer), half = kept.length / 2;
  [0, 1].forEach((alpha) => prefixes.set(alpha, kept.subarray(alpha * half, (alpha + 1) * half)));
  const externalData = ['base.bin', 'adapter.bin'].map((path) => ({path, data: files[path]}));
  const open = async (runtime, wasmBinary, provider) => {
    const numThreads = self.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency) : 1;
    Object.assign(runtime.env.wasm, {wasmBinary: wasmBinary.buffer, wasmPaths: `${folder}runtime/`, numThreads});
    const opened = await runtime.InferenceSession.create(files['graph.onnx'], {externalData, executionProviders: [provider]});
    [ort, session] = [runtime, opened];
    return numThreads === 1 ? 'one thread' : `${numThreads} threads`;
  };
  let where = await open(wasm, files[about.files.at(-1).name], 'wasm');
  if (await self.navigator.gpu?.requestAdapter().catch(() => null)) {
    const [seconds, slower] = [await trial(), session];
    try {
      await open(await import('./runtime/ort.webgpu.min.mjs'), await get(about.gpu), 'webgpu');
      await trial();  // compiles its programs
      if (await trial() >= seconds) throw Error('The GPU is slower.');
      where = 'its GPU';
      slower.release();
    } catch { [ort, session] = [wasm, slower]; }
  }
  const old = (await store?.keys() ?? []).filter(({url}) => url.startsWith(folder) && !wanted.has(url));
  await Promise.all(old.map((one) => store.delete(one)));
  postMessage({ready: where});
};

// Milliseconds for the stored answers; endless where one of them differs
const trial = async () => {
  const began = performance.now();
  for (const {text, ...told} of about.samples) {
    for (const [actor, alpha] of [['fine', 1], ['base', 0]]) {
      for await (const {p} of read(encode(text), alpha)) if (Math.abs(p - told[actor]) > about.largest) return Infinity;
    }
  }
  return performance.now() - began;
};

// ---- passes

const prefixes = new Map();
const int = (numbers) => new ort.Tensor('int32', Int32Array.from(numbers), [numbers.length]);
const pastOf = (data) => {
  const [rows, heads, size] = about.past;
  return new ort.Tensor('float32', data, [rows, heads, data.length / (rows * heads * size), size]);
};
// The keys and values of some of a past's tokens
const part = ({dims: [rows, heads, length, size], data}, from, to) => {
  const each = (to - from) * size, kept = new Float32Array(rows * heads * each), at = (i) => (i * length + from) * size;
  for (let i = 0; i < rows * heads; i += 1) kept.set(data.subarray(at(i), at(i) + each), i * each);
  return kept;
};

// The same tokens behind the first `seen` ones of a past, once for each number in `seen`: their log-odds, and all keys
// and values
const pass = (tokens, seen, past, alpha) =>
  session.run({ids: int(tokens), seen: int(seen), past, alpha: new ort.Tensor('float32', [alpha], [1])});
const prefixOf = async (alpha) => {
  if (!prefixes.has(alpha)) {  // behind one token that nothing sees, as a GPU takes no empty past
    const nothing = pastOf(new Float32Array(about.past.reduce((product, n) => product * n)));
    const {present} = await pass(about.prefix, [0], nothing, alpha);
    prefixes.set(alpha, part(present, 1, 1 + about.prefix.length));
  }
  return pastOf(prefixes.get(alpha));
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
    past = pastOf(part(began.present, 0, about.prefix.length + done));
    yield {p: probabilities(began, alpha)[0], read: done / row.length};
  }
  const found = await pass(row.slice(done), [about.prefix.length + done], past, alpha);
  yield {p: probabilities(found, alpha)[0], read: 1, present: found.present};
}

async function* answers(given) {
  const text = cleaned(given, about.characters), review = encode(text), kept = {}, found = {};
  const length = about.prefix.length + review.row.length;
  for (const [actor, alpha] of [['fine', 1], ['base', 0]]) {
    const began = performance.now();
    for await (const {p, read: share, present} of read(review, alpha)) {
      const seconds = (performance.now() - began) / 1000;
      const detail = `${seconds.toFixed(1)} s, ${length.toLocaleString('en')} tokens, in this browser`;
      kept[actor] = {p, present};
      yield {[actor]: {p, read: share, cut: review.cut, seconds, detail}};
    }
  }
  const [ends, cuts] = rowsOf(text, review.tokens, review.shown.length, about.mark, mostRows(length));
  for (const [actor, alpha] of [['fine', 1], ['base', 0]]) {
    const {p, present} = kept[actor], seen = cuts.map((cut) => about.prefix.length + cut);
    const before = cuts.length ? probabilities(await pass(about.suffix, seen, present, alpha), alpha) : [];
    found[actor] = [...before, p];
    yield {trace: traceValue(text, ends, found)};
  }
  yield {dial: dialOf(given, kept.base, kept.fine, [])};
}

// As Python's `dial_value`: null where a point is not known yet
const dialOf = (text, base, fine, between) =>
  ({text, curve: [base.p, ...between, ...about.dial.slice(between.length).fill(null), fine.p], busy: false});

async function* dial(given, {base, fine}) {
  const review = encode(cleaned(given, about.characters)), between = [], {most} = about.say, n = review.shown.length;
  const show = (more) => ({dial: {...dialOf(given, base, fine, between), ...more}});
  if (n > most) { yield show({note: `The dial takes reviews of up to ${most} tokens; this one has ${n.toLocaleString('en')}.`}); return; }
  yield show({busy: true});
  for (const alpha of about.dial) {
    const found = await pass(review.row, [about.prefix.length], await prefixOf(alpha), alpha);
    between.push(...probabilities(found, alpha));
    yield show({busy: true});
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

work = (self.WebAssembly ? load() : Promise.reject(Error(NO_WASM))).catch((error) => {
  const memory = error instanceof RangeError || /memory|alloc/i.test(error.message), simd = /wasm|WebAssembly/.test(error.message);
  postMessage({failed: memory ? NO_MEMORY : simd ? NO_WASM : error.message});
});
