// Both models in the visitor's own browser: `model.json` beside this file says what to fetch, each file once (Cache API, by
// its content), and how to ask. Messages in: {ask: text} or {turn: text}, the newest counts. Out: {bytes} as they come,
// {ready}, {value} as the server's `answers.stream` has it, {failed: sentence}. Nothing is fetched after `ready`.
import * as wasm from './runtime/ort.wasm.bundle.min.mjs';
import {Tokenizer} from './runtime/tokenizers.min.mjs';
import {cleaned, cutMiddle, mostRows, rowsOf, traceValue} from './reading.js';

const NO_MEMORY = 'This browser has too little free memory for the model, which takes about 500 MB. '
  + 'Please close other tabs, or try a computer.';
const NO_WASM = 'This browser cannot run the model, for want of WebAssembly with SIMD. Please update it, or try another.';
const ACTORS = [['fine', 1], ['base', 0]];
const numThreads = self.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency) : 1;
let about, session, tokenizer, prefixes, latest = 0, shown = {};

// ---- loading

const urlOf = ({name, sha256}) => new URL(`${name}?${sha256}`, location).href;
const hex = (buffer) => [...new Uint8Array(buffer)].map((byte) => byte.toString(16).padStart(2, '0')).join('');

const get = async (file, store) => {
  const {name, bytes, sha256} = file, url = urlOf(file), known = await store?.match(url);
  const response = known ?? await fetch(url).catch(() => ({status: 'no connection'}));
  if (!response.ok) throw Error(`${name} could not be fetched (${response.status}). Please try again.`);
  const counted = new TransformStream({transform: (part, to) => { postMessage({bytes: part.length}); to.enqueue(part); }});
  const whole = new Uint8Array(await new Response(response.body.pipeThrough(counted)).arrayBuffer());
  const unknown = !known && self.crypto.subtle;  // which is there with https alone
  const found = unknown ? hex(await crypto.subtle.digest('SHA-256', whole)) : sha256;
  if (found !== sha256 || whole.length !== bytes) throw Error(`${name} arrived damaged or is of another version. Please reload the page.`);
  if (!known) await store?.put(url, new Response(whole)).catch(() => {});
  return whole;
};

const load = async () => {
  if (!self.WebAssembly) throw Error('WebAssembly is missing.');
  about = await (await fetch('model.json')).json();
  const store = await self.caches?.open(location.href).catch(() => null), files = {};
  for (const file of about.files) files[file.name] = await get(file, store);
  tokenizer = new Tokenizer(JSON.parse(new TextDecoder().decode(files['tokenizer.json'])), {});
  const kept = new Float32Array(files['prefix.bin'].buffer), [rows, heads, size] = about.past, half = kept.length / 2;
  prefixes = [0, half].map((at) => new wasm.Tensor('float32', kept.subarray(at, at + half), [rows, heads, about.prefix.length, size]));
  const externalData = ['base.bin', 'adapter.bin'].map((path) => ({path, data: files[path]}));
  const open = (runtime, {buffer}, provider) => {
    Object.assign(runtime.env.wasm, {wasmBinary: buffer, numThreads});
    return runtime.InferenceSession.create(files['graph.onnx'], {externalData, executionProviders: [provider]});
  };
  session = await open(wasm, files[about.files.at(-1).name], 'wasm');
  let ready = numThreads === 1 ? 'one thread' : `${numThreads} threads`;
  const adapter = await self.navigator.gpu?.requestAdapter().catch(() => null);
  if (adapter && !adapter.info?.isFallbackAdapter) {  // which is the processor once more, and takes minutes
    const [seconds, slower] = [await trial(), session];
    try {
      session = await open(await import('./runtime/ort.webgpu.bundle.min.mjs'), await get(about.gpu, store), 'webgpu');
      // the first one compiles its programs
      if (await trial(10 * seconds) === Infinity || await trial(seconds) >= seconds) throw Error('The GPU is slower.');
      ready = 'its GPU';
      slower.release();
    } catch { session = slower; }
  }
  const wanted = [...about.files, about.gpu].map(urlOf);
  for (const {url} of await store?.keys() ?? []) if (!wanted.includes(url)) await store.delete(url);
  postMessage({ready});
};

// Milliseconds for the stored answers; endless where one of them differs, or once it takes longer than `most`
const trial = async (most = Infinity) => {
  const began = performance.now(), late = () => performance.now() - began > most;
  for (const {text, ...told} of about.samples) {
    for (const [actor, alpha] of ACTORS) {
      for await (const {p} of read(encode(text), alpha)) if (Math.abs(p - told[actor]) > about.largest || late()) return Infinity;
    }
  }
  return performance.now() - began;
};

// ---- answers

// The same tokens behind the first `seen` ones of a past, once for each number in `seen`: P(positive) of each, and all
// keys and values
const pass = async (tokens, seen, past, alpha) => {
  const [ids, places] = [tokens, seen].map((numbers) => new wasm.Tensor('int32', numbers));
  const {log_odds: {data}, present} = await session.run({ids, seen: places, past, alpha: new wasm.Tensor('float32', [alpha])});
  const temperature = 1 + alpha * (about.temperature - 1);
  return {p: Array.from(data, (x) => 1 / (1 + Math.exp(-x / temperature))), present};
};

const encode = (given) => {
  const text = cleaned(given, about.characters), {ids, tokens} = tokenizer.encode(text);
  const [kept, cut] = cutMiddle(ids, about.limit - about.prefix.length - about.suffix.length, about.mark);
  return {text, tokens, kept, cut, row: [...kept, ...about.suffix]};
};

// P(positive) of a long review's beginning, then of all of it with its keys and values: {p, read, present}
async function* read({row}, alpha) {
  const before = about.prefix.length;
  let past = prefixes[alpha], done = 0;
  if (row.length > about.long) {
    done = about.first;
    past = (await pass(row.slice(0, done), [before], past, alpha)).present;
    yield {p: (await pass(about.suffix, [before + done], past, alpha)).p[0], read: done / row.length};
  }
  const {p: [p], present} = await pass(row.slice(done), [before + done], past, alpha);
  yield {p, read: 1, present};
}

async function* answers(given) {
  const review = encode(given), {text, tokens, kept, cut, row} = review, p = {}, presents = {}, found = {};
  const before = about.prefix.length, length = before + row.length;
  for (const [actor, alpha] of ACTORS) {
    const began = performance.now();
    for await (const one of read(review, alpha)) {
      const seconds = (performance.now() - began) / 1000;
      const detail = `${seconds.toFixed(1)} s, ${length.toLocaleString('en')} tokens, in this browser`;
      [p[actor], presents[actor]] = [one.p, one.present];
      yield {[actor]: {p: one.p, read: one.read, cut, seconds, detail}};
    }
  }
  const [ends, cuts] = rowsOf(text, tokens, kept.length, about.mark, mostRows(length));
  for (const [actor, alpha] of ACTORS) {
    const seen = cuts.map((tokens) => before + tokens);
    const earlier = seen.length ? (await pass(about.suffix, seen, presents[actor], alpha)).p : [];
    found[actor] = [...earlier, p[actor]];
    yield {trace: traceValue(text, ends, found)};
  }
  yield {dial: {text: given, curve: [p.base, ...about.dial.map(() => null), p.fine], busy: false}};
}

async function* turned(text, {curve}) {
  const {kept: {length}, row} = encode(text), most = about.dial_tokens;
  const note = `The dial takes reviews of up to ${most} tokens; this one has ${length.toLocaleString('en')}.`;
  if (length > most) { yield {dial: {text, curve, busy: false, note}}; return; }
  for (const [i, alpha] of about.dial.entries()) {
    yield {dial: {text, curve, busy: true}};
    curve[1 + i] = (await pass([...about.prefix, ...row], [0], prefixes[0], alpha)).p[0];  // behind none of the past
  }
  yield {dial: {text, curve, busy: false}};
}

let work = load().catch(({name, message}) => {
  const memory = name === 'RangeError' || /memory|alloc/i.test(message), simd = /wasm|WebAssembly/.test(message);
  postMessage({failed: memory ? NO_MEMORY : simd ? NO_WASM : message});
});
onmessage = ({data: {ask, turn}}) => {
  const mine = latest += 1;
  work = work.then(async () => {
    if (ask !== undefined) shown = {text: ask, run: about.run, note: about.reading, trace: {rows: []}};
    try {
      for await (const more of ask === undefined ? turned(turn, shown.dial) : answers(ask)) {
        if (mine !== latest) return;
        postMessage({value: shown = {...shown, ...more}});
        await new Promise((done) => { setTimeout(done); });  // lets a newer message in
      }
    } catch ({name, message}) {
      postMessage({value: {...shown, note: 'No answer.', warn: name === 'RangeError' ? NO_MEMORY : message}});
    }
  });
};
