// A review as Python reads it, for the visitor's own browser: `dashboard/inputs`, `live/clauses`, `live/trace`, `prompts`
// say the same, function by function; tests/browser/test_in_browser.py holds both to each other.

export const cleaned = (given, most) => {
  const size = [...given].length, number = (n) => n.toLocaleString('en');
  if (size > most) {
    throw Error(`This text has ${number(size)} characters; up to ${number(most)} can be read. Please shorten it.`);
  }
  const text = given.replace(/\r\n?/g, '\n').replace(/(?![\n\t])[\p{Cc}\p{Cs}]/gu, ' ');
  if (!/\p{L}/u.test(text)) {
    throw Error('There is nothing to read yet: type a review, or pick one of the samples.');
  }
  return text.trim();
};

export const cutMiddle = (ids, limit, mark) => {
  if (ids.length <= limit) return [ids, false];
  const keep = Math.max(limit - mark.length, 0), tail = Math.floor(keep / 2);
  return [[...ids.slice(0, keep - tail), ...mark.slice(0, limit - keep), ...ids.slice(ids.length - tail)], true];
};

// ---- clauses

const any = (words) => words.replace(/[a-z]/g, (letter) => `[${letter}${letter.toUpperCase()}]`);
const LETTER = String.raw`[\p{L}\p{Nl}\p{No}]`, WORDLIKE = String.raw`[\p{L}\p{N}_]`;
const SENTENCE = [
  String.raw`(?<![.!?…])[.!?…]+["'”’)\]*]{0,8}(?=\s|$)`, String.raw`(?:[!?…]|(?<!\.)\.{2,})["”)\]]*(?=${LETTER})`,
  String.raw`(?<=[a-z])\.["”)\]]*(?=[A-Z])`, String.raw`(?:\s{0,8}<${any('br')}\s{0,8}/?>)+`, String.raw`(?=[^\S\n]{0,8}\n)`,
];
const INSIDE = [
  String.raw`[,;:]["'”’)\]]*(?=\s|${LETTER})`, String.raw`(?:[–—]|(?<!-)--+)(?=${WORDLIKE})`,
  String.raw`(?=\s(?:[–—\-]|--)\s)`, String.raw`(?=\s(?:${any('but|yet|however|although|though')})\s)`,
];
const END = new RegExp(`(?<sentence>${SENTENCE.join('|')})|${INSIDE.join('|')}`, 'gu');
const ABBREVIATION = /(?:^|[\s("“])(?:Mr|Mrs|Ms|Dr|St|vs|[A-Z])\.$/u;
const WORD = /[\p{L}\p{N}_][\p{L}\p{N}_'’-]*/gu, GOES_ON = /[\s"'“]{0,20}(.)/uy;

export const mostRows = (tokens) => Math.min(24, Math.max(6, Math.floor(tokens / 10)));

const clauseEnds = (text, most) => {
  const rows = [], found = [...text.matchAll(END)].map((m) => [m.index + m[0].length, m[0], m.groups.sentence !== undefined]);
  let words = 0, start = 0;
  for (const [end, mark, sentence] of [...found, [text.length, '', true]]) {
    GOES_ON.lastIndex = end;
    const on = mark && '.!?…,'.includes(mark[0]) && /^\p{Lowercase}/u.test(GOES_ON.exec(text)?.[1] ?? '');
    if (ABBREVIATION.test(text.slice(Math.max(0, end - 8), end)) || (on && mark.endsWith(')'))) continue;
    words += (text.slice(start, end).replaceAll('<br', '<').match(WORD) ?? []).length;
    start = end;
    const last = rows.at(-1), ends = sentence && !on;
    if (last && !words) Object.assign(last, {end, sentence: last.sentence || sentence});
    else if (words >= 2 || (words && ends)) rows.push({end, words, sentence: ends});
    else continue;
    words = 0;
  }
  return [...joined(rows, most).slice(0, -1).map((row) => row.end), text.length];
};

const joined = (rows, most) => {
  const both = (part) => ({...part.at(-1), words: part.reduce((sum, row) => sum + row.words, 0)});
  const run = Math.ceil(rows.length / (10 * most));
  if (run > 1) rows = rows.flatMap((_, i) => (i % run ? [] : [both(rows.slice(i, i + run))]));
  while (rows.length > most) {
    const all = rows.slice(0, -1).map((_, i) => i), inside = all.filter((i) => !rows[i].sentence);
    const size = (i) => rows[i].words + rows[i + 1].words;
    const at = (inside.length ? inside : all).reduce((best, i) => (size(i) < size(best) ? i : best));
    rows.splice(at, 2, both(rows.slice(at, at + 2)));
  }
  return rows;
};

// Where the rows end in the text, and after how many of the `shown` tokens of the review, for all but the last. Tokens
// are byte-level: one character of a token is one byte of the text.
export const rowsOf = (text, tokens, shown, mark, most) => {
  let bytes = 0;
  const coded = new TextEncoder().encode(text), tokenEnds = tokens.map((token) => (bytes += [...token].length));
  const places = cutMiddle([...tokens.keys()], shown, mark.map(() => -1))[0], ends = [], cuts = [];
  for (const end of clauseEnds(text, most).slice(0, -1)) {
    const until = new TextEncoder().encode(text.slice(0, end)).length;
    const cut = 1 + places.findLastIndex((place) => place >= 0 && tokenEnds[place] <= until);
    if (cut >= shown || cut <= (cuts.at(-1) ?? 0)) continue;
    ends.push(new TextDecoder().decode(coded.subarray(0, tokenEnds[places[cut - 1]])).length);
    cuts.push(cut);
  }
  return [[...ends, text.length], cuts];
};

// found: {fine, base} P(positive) after each row, base once it is known
export const traceValue = (text, ends, {fine, base}) => ({rows: ends.map((end, i) =>
  ({text: text.slice(ends[i - 1] ?? 0, end).trim(), base: base?.[i] ?? null, fine: fine[i]}))});
