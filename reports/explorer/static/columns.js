// The columns as typed arrays, and what filters and orders do with them. Nothing here touches the document.

const RIGHT = 1, WRONG = 2, SILENT = 3, FAILED = 4;
const STATES = { " ": 0, r: RIGHT, w: WRONG, u: SILENT, f: FAILED };
const IMAGES = page.images.key.length;
const QUESTIONS = page.questions.number.length;

const imageOf = new Uint32Array(QUESTIONS);
const subtaskOf = Uint8Array.from(page.questions.subtask, Number);
const states = page.states.map((codes) => Uint8Array.from(codes, (code) => STATES[code]));
const rightCount = new Uint8Array(QUESTIONS);
const askedCount = new Uint8Array(QUESTIONS);
const disagree = new Uint8Array(QUESTIONS); // 1 where two models gave different letters
/** The questions' texts, once they are unpacked: distinct texts in lower case, and which one each question has. */
const wording = { texts: [], lower: [], of: null };
const lowerKeys = page.images.key.map((key) => key.toLowerCase());

{
  let question = 0;
  page.images.questions.forEach((count, image) => {
    imageOf.fill(image, question, question + count);
    question += count;
  });
  for (let q = 0; q < QUESTIONS; q++) {
    let first = "";
    for (let m = 0; m < MODELS; m++) {
      const state = states[m][q];
      if (state) askedCount[q]++;
      if (state === RIGHT) rightCount[q]++;
      const letter = page.letters[m][q];
      if (letter === "-") continue;
      if (first === "") first = letter;
      else if (letter !== first) disagree[q] = 1;
    }
  }
}

async function loadWordings() {
  const found = await unpack("wordings");
  wording.texts = found.texts;
  wording.lower = found.texts.map((text) => text.toLowerCase());
  wording.of = Uint32Array.from(found.of);
}

/** How many of a grouping's groups there are; images in none count as one more. */
const variety = (key) => new Set(page.groups[key]?.of).size;
const GROUPS = ["dataset", "object", "kind", "area", "size"].filter((key) => page.groups[key]);
const PRESETS = [
  ["", "All questions"],
  ["none-right", "No model right"],
  ["all-right", "Every model right"],
  ["disagree", "Models disagree"],
  ["no-letter", "Some model without a letter"],
  ["duel", "A wrong, B right"],
];
const MODEL_STATES = [["", "any"], ["right", "right"], ["wrong", "wrong"], ["silent", "no letter"]];

/** Everything that decides which questions are listed, and in which order. */
function noFilters() {
  return {
    search: "", preset: "", a: "0", b: MODELS > 1 ? "1" : "0", subtask: "", condition: "",
    dataset: "", object: "", kind: "", area: "", size: "",
    models: Array(MODELS).fill(""), sort: "position", down: false,
  };
}

/** Which images pass: one byte each. */
function passingImages(filters) {
  const pass = new Uint8Array(IMAGES).fill(1);
  for (const key of GROUPS) {
    if (filters[key] === "") continue;
    const wanted = Number(filters[key]);
    const of = page.groups[key].of;
    for (let i = 0; i < IMAGES; i++) if (of[i] !== wanted) pass[i] = 0;
  }
  if (filters.condition !== "") {
    const wanted = filters.condition === "normal" ? "1" : "0";
    for (let i = 0; i < IMAGES; i++) if (page.images.normal[i] !== wanted) pass[i] = 0;
  }
  return pass;
}

/** Tests of a single question, the cheapest first. */
function questionTests(filters) {
  const tests = [];
  if (filters.subtask !== "") {
    const wanted = Number(filters.subtask);
    tests.push((q) => subtaskOf[q] === wanted);
  }
  filters.models.forEach((wanted, m) => {
    const of = states[m];
    if (wanted === "right") tests.push((q) => of[q] === RIGHT);
    if (wanted === "wrong") tests.push((q) => of[q] === WRONG);
    if (wanted === "silent") tests.push((q) => of[q] >= SILENT);
  });
  const a = states[Number(filters.a)], b = states[Number(filters.b)];
  const presets = {
    "none-right": (q) => rightCount[q] === 0,
    "all-right": (q) => rightCount[q] === askedCount[q],
    disagree: (q) => disagree[q] === 1,
    "no-letter": (q) => states.some((of) => of[q] >= SILENT),
    duel: (q) => a[q] >= WRONG && b[q] === RIGHT,
  };
  if (presets[filters.preset]) tests.push(presets[filters.preset]);
  for (const term of filters.search.toLowerCase().split(/\s+/).filter(Boolean)) tests.push(searching(term));
  return tests;
}

/** Whether a question's image key or text has a term in it: each key and each text is looked at once. */
function searching(term) {
  const inKey = Uint8Array.from(lowerKeys, (key) => key.includes(term));
  const inText = Uint8Array.from(wording.lower, (text) => text.includes(term));
  return (q) => inKey[imageOf[q]] === 1 || (wording.of !== null && inText[wording.of[q]] === 1);
}

const SORT_KEYS = {
  position: (q) => q,
  key: (() => {
    let rank = null;
    return (q) => {
      if (rank === null) {
        rank = new Uint32Array(IMAGES);
        const sorted = [...rank.keys()].sort((i, j) => (lowerKeys[i] < lowerKeys[j] ? -1 : 1));
        sorted.forEach((image, place) => (rank[image] = place));
      }
      return rank[imageOf[q]];
    };
  })(),
  subtask: (q) => subtaskOf[q],
  area: (q) => page.images.area[imageOf[q]],
  right: (q) => rightCount[q],
};
const orders = new Map();

/** All questions in an order; those without a value come last both ways. Each order is made once. */
function orderOf(sort, down) {
  const name = `${sort} ${down}`;
  if (!orders.has(name)) {
    const key = SORT_KEYS[sort];
    const values = Float64Array.from({ length: QUESTIONS }, (_, q) => {
      const value = key(q);
      return value === null ? Infinity : down ? -value : value;
    });
    const order = Uint32Array.from({ length: QUESTIONS }, (_, q) => q);
    if (sort !== "position" || down) order.sort((p, q) => (values[p] === values[q] ? p - q : values[p] - values[q]));
    orders.set(name, order);
  }
  return orders.get(name);
}

/** The questions that pass, in order. */
function matching(filters) {
  const pass = passingImages(filters);
  const tests = questionTests(filters);
  const found = new Uint32Array(QUESTIONS);
  let count = 0;
  const order = orderOf(filters.sort, filters.down);
  next: for (let i = 0; i < QUESTIONS; i++) {
    const q = order[i];
    if (pass[imageOf[q]] === 0) continue;
    for (const test of tests) if (!test(q)) continue next;
    found[count++] = q;
  }
  return found.subarray(0, count);
}

/** Each model's questions asked and right among these. */
function sharesOf(found) {
  return states.map((of) => {
    let asked = 0, right = 0;
    for (let i = 0; i < found.length; i++) {
      const state = of[found[i]];
      if (state) asked++;
      if (state === RIGHT) right++;
    }
    return { asked, right };
  });
}

/** An image's name in words: product, kind, file. */
function nameOf(image) {
  const parts = page.images.key[image].split("/");
  const label = (key) => page.groups[key]?.labels[page.groups[key].of[image]] ?? "normal"; // of no kind of defect
  return { dataset: label("dataset"), object: label("object"), kind: label("kind"), file: parts[parts.length - 1] };
}
