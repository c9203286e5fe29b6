// One question: its pictures, options, and what every model said. All texts are set as text.

const item = { question: null, place: null, shown: false, leaving: null, chunks: new Map(), turn: 0, move: () => {}, smooth: true, heat: 0 };
const KEPT_CHUNKS = 6;

/** Options and answers of a question, and its pictures. */
async function detailsOf(q) {
  const number = Math.floor(q / page.chunk);
  if (!item.chunks.has(number)) {
    if (item.chunks.size >= KEPT_CHUNKS) item.chunks.delete(item.chunks.keys().next().value);
    item.chunks.set(number, unpack(`chunk-${number}`));
  }
  const chunk = await item.chunks.get(number);
  return { ...chunk.questions[q % page.chunk], pictures: chunk.images[imageOf[q]] };
}

/** Open a question, unless another one came first; `place` is its place in the list, or null if it is not in it. */
async function openItem(q, place) {
  const turn = ++item.turn;
  const details = await detailsOf(q);
  if (turn !== item.turn) return false; // somebody went on while it was unpacked
  const dialog = $("#item");
  const body = make(
    "div", { class: "body", tabindex: "-1" },
    chipsOf(q), picturesOf(q, details.pictures),
    make("div", { class: "ask" }, askedOf(q, details.options), make("div", {}, make("h3", {}, "Answers"), ...answersOf(q, details))),
  );
  dialog.replaceChildren(topOf(q, place), body);
  Object.assign(item, { question: q, place, shown: true });
  if (!dialog.open) dialog.showModal();
  body.focus({ preventScroll: true });
  return true;
}

function topOf(q, place) {
  const { dataset, object, file } = nameOf(imageOf[q]);
  const button = (text, label, act) => {
    const node = make("button", { type: "button", class: "quiet", "aria-label": label, title: label }, text);
    node.addEventListener("click", act);
    return node;
  };
  const where = place === null ? "not in the list" : `${whole(place + 1)} of ${whole(list.found.length)}`;
  return make(
    "div", { class: "top" },
    make("h2", { id: "item-title" }, spoken(object), make("small", {}, `${dataset} / ${file}`)),
    make("span", { class: "place" }, where),
    button("\u2190", "Previous question (k)", () => item.move(-1)),
    button("\u2192", "Next question (j)", () => item.move(1)),
    button("\u2715", "Close (Esc)", () => $("#item").close()),
  );
}

function chipsOf(q) {
  const image = imageOf[q], normal = page.images.normal[image] === "1";
  const chip = (text, kind = "") => make("span", { class: `chip ${kind}` }, text);
  const area = page.images.area[image], size = page.images.size[image];
  const chips = [normal ? chip("normal", "normal") : chip(spoken(nameOf(image).kind), "anomalous")];
  if (area !== null) chips.push(chip(`defect covers ${percent(100 * area, area < 0.01 ? 2 : 1)}`));
  if (size) chips.push(chip(`${size[0]} \u00d7 ${size[1]} px`));
  let first = q, last = q;
  while (first > 0 && imageOf[first - 1] === image) first--;
  while (last + 1 < QUESTIONS && imageOf[last + 1] === image) last++;
  if (first === last) return make("div", { class: "chips" }, ...chips);
  for (let other = first; other <= last; other++) {
    const title = `${page.subtasks[subtaskOf[other]].title} ${rightCount[other]}/${askedCount[other]}`;
    const node = make("button", { type: "button", class: "chip", "aria-current": other === q ? "true" : null, title: "Another question on this image" }, title);
    node.addEventListener("click", () => item.show(other));
    chips.push(node);
  }
  return make("div", { class: "chips" }, ...chips);
}

const picture = (src, alt, kind = "") => make("img", { src, alt, class: kind, loading: "lazy", decoding: "async" });

/** Reference, query, ground truth and heat map beside each other, as far as they are there. */
function picturesOf(q, { query, references = [], mask, heat = [] }) {
  const alone = page.alone.includes(subtaskOf[q]);
  const tile = (title, ...inside) => make("figure", {}, make("figcaption", {}, title), make("div", { class: "frame" }, ...inside));
  const tiles = references.map((src, i) => tile(`Reference${references.length > 1 ? ` ${i + 1}` : ""}${alone ? " (not shown to the models here)" : ""}`, picture(src, "A normal product, for reference")));
  if (query) tiles.push(tile("Query", picture(query, "The image that is asked about")));
  if (query && mask) tiles.push(tile("Ground truth", picture(query, "The image once more"), picture(mask, "Outline of the defect", "over")));
  if (heat.length) tiles.push(heatTile(query, mask, heat));
  const row = make("div", { class: "pictures" }, ...tiles);
  row.style.setProperty("--tiles", Math.min(Math.max(tiles.length, 1), 4));
  return row;
}

/** A model's heat map over the query; several models can be chosen from. */
function heatTile(query, mask, heat) {
  const frame = make("div", { class: "frame" });
  const scale = make("div", { class: "scale" });
  const draw = () => {
    const [model, src, highest] = heat.find(([m]) => m === item.heat) ?? heat[0];
    const over = picture(src, `Where ${page.models[model].title} sees a difference`, `heat ${query ? "over" : ""} ${item.smooth ? "" : "patches"}`);
    frame.replaceChildren(...(query ? [picture(query, "")] : []), over, ...(mask ? [picture(mask, "", "over")] : []));
    const top = page.heat[model];
    $("#heat feFuncR").setAttribute("amplitude", top ** -0.7); // the exponent is the filter's: it brings out what is faint
    const told = `highest here ${highest.toFixed(2)}`;
    scale.replaceChildren("0", make("span", { class: "ramp" }), top.toFixed(2), make("span", { title: "cosine distance to the reference" }, told));
  };
  const patches = make("button", { type: "button", class: "chip", title: "Smooth, or the patches as they are" }, "patches");
  patches.addEventListener("click", () => {
    item.smooth = !item.smooth;
    draw();
  });
  const caption = make("figcaption", {}, make("span", {}, "Heat map"));
  if (heat.length > 1) {
    const select = make("select", { "aria-label": "Heat map of" });
    fill(select, heat.map(([m]) => [String(m), page.models[m].title]), String((heat.find(([m]) => m === item.heat) ?? heat[0])[0]));
    select.addEventListener("change", () => {
      item.heat = Number(select.value);
      draw();
    });
    caption.append(select);
  }
  caption.append(patches);
  draw();
  return make("figure", {}, caption, frame, scale);
}

function askedOf(q, options) {
  const correct = page.questions.correct[q];
  const text = wording.of === null ? "" : wording.texts[wording.of[q]];
  const lines = options.map(([letter, option]) => {
    const right = letter === correct;
    const chosen = page.models.map((_, m) => m).filter((m) => page.letters[m][q] === letter);
    const who = make("span", { class: "who", role: "img", "aria-label": chosen.length ? `chosen by ${chosen.map((m) => page.models[m].title).join(", ")}` : "chosen by no model" },
      ...chosen.map((m) => {
        const mark = swatch(m);
        mark.setAttribute("viewBox", "9 0 16 16");
        mark.setAttribute("width", 16);
        return mark;
      }));
    const words = make("span", { class: "text" }, option);
    if (right) words.append(make("em", {}, "the right answer"));
    return make("li", { class: right ? "right" : "" }, make("span", { class: "letter" }, letter), words, who);
  });
  const bare = options.length ? null : make("p", { class: "key" }, `The right answer is ${correct}; the options are not known.`);
  return make(
    "div", {}, make("h3", {}, page.subtasks[subtaskOf[q]].title),
    text ? make("p", { class: "question" }, text) : null, make("ol", { class: "options" }, ...lines), bare,
  );
}

function answersOf(q, details) {
  return page.models.map((model, m) => {
    const said = details.said[m], state = states[m][q];
    const outcome = [`\u2013 not asked`, "\u2713 right", "\u2717 wrong", "\u2013 no letter", "! failed"][state];
    const header = make(
      "header", {}, swatch(m), make("b", {}, model.title), markOf(q, m),
      said?.[2] ? make("span", { class: "soft" }, `${whole(said[2])} tokens`) : null,
      make("span", { class: `outcome ${MARKS[state] ?? ""}` }, outcome),
    );
    return make("article", { class: "model" }, header, ...(said ? partsOf(said, q, m) : []));
  });
}

/** Reason, probabilities and response, as far as they are known. */
function partsOf([text, cut, , reason, logprobs], q, m) {
  const correct = page.questions.correct[q], letter = page.letters[m][q];
  const parts = [];
  if (reason) parts.push(make("p", { class: "cut" }, reason));
  if (Object.keys(logprobs).length) parts.push(probabilitiesOf(logprobs, correct, m));
  if (text && text.trim() !== letter) parts.push(make("pre", { class: "response", tabindex: "0", dir: "auto" }, text));
  if (cut) parts.push(make("p", { class: "cut" }, `${whole(cut)} more characters are not in this page; the run's folder has them.`));
  return parts;
}

/** Log-probabilities as bars of the options' probabilities, which sum to 1. */
function probabilitiesOf(logprobs, correct, m) {
  const pairs = Object.entries(logprobs);
  const top = Math.max(...pairs.map(([, value]) => value));
  const weights = pairs.map(([, value]) => Math.exp(value - top));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  const cells = pairs.flatMap(([letter, value], i) => {
    const share = weights[i] / total;
    const bar = make("span", { class: "fill" });
    bar.style.width = `${100 * share}%`;
    const mark = letter === correct ? `${letter}\u2713` : letter;
    return [
      make("span", { class: "letter" }, mark), make("span", { class: `track ${series(m)}`, "aria-hidden": "true" }, bar),
      make("span", { class: "value" }, percent(100 * share)), make("span", { class: "soft", title: "log-probability" }, value.toFixed(2)),
    ];
  });
  return make("div", { class: "probabilities", role: "group", "aria-label": "Probabilities of the options" }, ...cells);
}
