// Filters, the address, the keyboard: what ties list and question together.

let filters = noFilters();
const FIELDS = { dataset: "f-dataset", object: "f-object", kind: "f-kind", subtask: "f-subtask", condition: "f-condition",
  area: "f-area", size: "f-size", preset: "f-preset", a: "f-a", b: "f-b" };
const ANY = ["", "any"];

function setUpFilters() {
  for (const key of ["dataset", "object", "kind", "area", "size"]) {
    if (page.groups[key]) fillGroup(key);
    $(`#f-${key}`).closest("label").hidden = variety(key) < 2;
  }
  fill($("#f-subtask"), [ANY, ...page.subtasks.map((subtask, i) => [String(i), subtask.title])]);
  fill($("#f-condition"), [ANY, ["normal", "normal"], ["anomalous", "anomalous"]]);
  fill($("#f-preset"), MODELS > 1 ? PRESETS : PRESETS.filter(([key]) => !["disagree", "duel"].includes(key)));
  const models = page.models.map((model, m) => [String(m), model.title]);
  for (const id of ["f-a", "f-b"]) fill($(`#${id}`), models);
  $("#f-models").replaceChildren(...page.models.map((model, m) => {
    const select = make("select", { "data-model": m });
    fill(select, MODEL_STATES);
    return make("label", {}, swatch(m), model.title, select);
  }));
  const form = $("#filters");
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => queueMicrotask(() => {
    $("#left-out").hidden = true;
    change(noFilters());
  }));
  form.addEventListener("change", readForm);
  $("#search").addEventListener("input", readForm);
}

/** The values of one group; products of another dataset than the one chosen are left out. */
function fillGroup(key) {
  const { labels, of } = page.groups[key];
  let used = new Set(of); // of images in no group there is null as well, which is no option
  if (key !== "dataset" && filters.dataset !== "") {
    const dataset = Number(filters.dataset);
    used = new Set(of.filter((_, image) => page.groups.dataset.of[image] === dataset));
  }
  const pairs = labels.map((label, group) => [String(group), spoken(label)]).filter(([group]) => used.has(Number(group)));
  fill($(`#f-${key}`), [ANY, ...pairs]);
}

function readForm() {
  $("#left-out").hidden = true;
  const next = { ...filters, search: $("#search").value };
  for (const [key, id] of Object.entries(FIELDS)) next[key] = $(`#${id}`).value;
  next.models = $$("#f-models select").map((select) => select.value);
  if (next.dataset !== filters.dataset) next.object = "";
  change(next);
}

/** Show what passes these filters, in form, list and address. */
function change(next) {
  const moved = next.dataset !== filters.dataset;
  filters = next;
  if (moved) for (const key of ["object", "kind"]) fillGroup(key);
  for (const [key, id] of Object.entries(FIELDS)) {
    const select = $(`#${id}`);
    select.value = filters[key];
    if (select.value !== filters[key]) filters[key] = select.value = "";
    select.classList.toggle("set", filters[key] !== "" && key !== "a" && key !== "b");
  }
  if ($("#search").value !== filters.search) $("#search").value = filters.search;
  $$("#f-models select").forEach((select, m) => {
    select.value = filters.models[m];
    select.classList.toggle("set", filters.models[m] !== "");
  });
  for (const id of ["f-a", "f-b"]) $(`#${id}`).closest("label").hidden = filters.preset !== "duel";
  if (filters.models.some(Boolean)) $("#by-model").open = true;
  const found = matching(filters);
  showList(found, filters);
  showShares(found);
  $("#count").textContent = `${whole(found.length)} of ${whole(QUESTIONS)} questions`;
  writeAddress();
}

function showShares(found) {
  const shares = sharesOf(found).map(({ asked, right }, m) => make(
    "span", {}, swatch(m), page.models[m].title, make("b", {}, asked ? percent((100 * right) / asked) : "\u2013"),
  ));
  $("#shares").replaceChildren(make("span", { class: "lead" }, "Right among these, every question counted once (no average of subtasks):"), ...shares);
}

function sortBy(sort) {
  const again = filters.sort === sort;
  if (again && filters.down) change({ ...filters, sort: "position", down: false });
  else change({ ...filters, sort, down: again });
}

/** A group of the drill-down becomes the filter: its wrong answers. */
function showGroup(key, group, model, metric) {
  const next = noFilters();
  next[key] = String(group);
  next.models[model] = "wrong";
  const subtask = page.subtasks.findIndex((found) => found.key === metric);
  next.subtask = subtask < 0 ? "" : String(subtask);
  change(next);
  $("#left-out").hidden = true;
  $("#questions").scrollIntoView();
  $("#list").focus({ preventScroll: true });
}

/** Filters and question as the part of the address behind "#?"; not before the first one was read. */
function writeAddress(opened = false) {
  if (!document.documentElement.dataset.ready) return;
  const plain = noFilters(), told = new URLSearchParams();
  for (const [key, value] of Object.entries(filters)) {
    if (key === "models" || value === plain[key]) continue;
    told.set(key, page.groups[key] ? page.groups[key].labels[Number(value)] : String(value));
  }
  filters.models.forEach((state, m) => state && told.set(`model.${page.models[m].id}`, state));
  if (item.question !== null) told.set("item", nameOfQuestion(item.question));
  const address = told.size ? `#?${told}` : location.hash.startsWith("#?") ? "#questions" : location.hash;
  if (address === location.hash) return;
  // A question that was opened is a step that the browser's Back takes back; all else only changes the address.
  if (opened && item.question !== null && !history.state?.item) history.pushState({ item: true }, "", address);
  else history.replaceState(history.state, "", address || "#");
}

const nameOfQuestion = (q) => `${page.images.key[imageOf[q]]}:${page.questions.number[q]}`;
const TITLES = { dataset: "dataset", object: "product", kind: "kind of defect", area: "defect area", size: "image size",
  subtask: "subtask", condition: "kind of image", preset: "filter of answers", a: "model", b: "model", sort: "column", item: "question" };

/** The filters that an address asks for, and the names of those that this report does not have. */
function filtersOf(told) {
  const next = noFilters(), strange = [];
  for (const [key, value] of told) {
    const missing = (what = TITLES[key] ?? "filter") => strange.push(`${what} ${what === "filter" ? key : value}`);
    if (key === "item") continue;
    if (page.groups[key]) {
      const group = page.groups[key].labels.indexOf(value);
      if (group < 0) missing();
      else next[key] = String(group);
    } else if (key.startsWith("model.")) {
      const m = page.models.findIndex((model) => model.id === key.slice(6));
      if (m < 0) strange.push(`model ${key.slice(6)}`);
      else if (MODEL_STATES.some(([state]) => state === value)) next.models[m] = value;
      else missing("kind of answer");
    } else if (key === "down") next.down = value === "true";
    else if (key === "search") next.search = value;
    else if (key === "sort" ? Object.hasOwn(SORT_KEYS, value) : hasOption(FIELDS[key], value)) next[key] = value;
    else missing();
  }
  return { next, strange };
}

const hasOption = (id, value) => id !== undefined && [...$(`#${id}`).options].some((option) => option.value === value);

/** The reverse of writing it; what names nothing here is left out, and said. `arrived` where the page was opened so. */
function readAddress(arrived) {
  const asked = location.hash.startsWith("#?"), told = new URLSearchParams(asked ? location.hash.slice(2) : "");
  const name = told.get("item"), q = name === null ? -1 : questionOf(name);
  if (q < 0) shutItem();
  if (!asked) return;
  const { next, strange } = filtersOf(told);
  const wanted = { ...next };
  if (arrived || JSON.stringify(next) !== JSON.stringify(filters)) {
    change(next);
    $("#questions").scrollIntoView({ behavior: "instant" });
  }
  for (const key of GROUPS) {
    if (wanted[key] !== filters[key]) strange.push(`${TITLES[key]} ${page.groups[key].labels[wanted[key]]} in this dataset`);
  }
  sayLeftOut(strange, q < 0 && name !== null ? [`question ${name}`] : []);
  if (q >= 0 && q !== item.question) showQuestion(q);
}

function sayLeftOut(filtersUnknown, unknown) {
  const listed = (names) => names.map((name) => (name.length > 80 ? `${name.slice(0, 79)}\u2026` : name)).join(", no ");
  const said = [];
  if (filtersUnknown.length) said.push(`This report has no ${listed(filtersUnknown)}; ${filtersUnknown.length === 1 ? "that filter was" : "these filters were"} left out.`);
  if (unknown.length) said.push(`This report has no ${listed(unknown)}.`);
  $("#left-out").hidden = !said.length;
  $("#left-out").textContent = said.join(" ");
}

/** The question that "key:number" names, or -1. */
function questionOf(name) {
  const cut = name.lastIndexOf(":");
  const image = page.images.key.indexOf(name.slice(0, cut));
  if (image < 0) return -1;
  for (let q = imageOf.indexOf(image); q < QUESTIONS && imageOf[q] === image; q++) {
    if (String(page.questions.number[q]) === name.slice(cut + 1)) return q;
  }
  return -1;
}

/** Open a question; `opened` where that is a step of its own, and not one from question to question. */
async function showQuestion(q, opened = false) {
  const dialog = $("#item");
  if (item.shown && !dialog.open) await new Promise((done) => dialog.addEventListener("close", done, { once: true }));
  await item.leaving; // a step back that is still under way would take this one with it
  const place = list.found.indexOf(q);
  if (place >= 0) goTo(place);
  if (await openItem(q, place < 0 ? null : place)) writeAddress(opened);
}

/** Close the window, or open none, where the address has no question any more. */
function shutItem() {
  item.turn++;
  item.question = null;
  $("#item").close();
}

/** Go back; over when the address has been read: hashchange comes after popstate, unless the addresses are alike. */
function stepBack() {
  const taken = new Promise((done) => {
    addEventListener("hashchange", done, { once: true });
    addEventListener("popstate", () => setTimeout(done, 200), { once: true });
  });
  history.back();
  return taken;
}

function setUpItem() {
  item.show = showQuestion;
  item.move = (step) => {
    const place = item.place === null ? 0 : item.place + step;
    if (place >= 0 && place < list.found.length) showQuestion(list.found[place]);
  };
  const dialog = $("#item");
  dialog.addEventListener("close", () => {
    item.turn++;
    const closedHere = item.question !== null;
    Object.assign(item, { question: null, shown: false });
    if (closedHere && history.state?.item) {
      item.leaving = stepBack();
    } else if (closedHere) writeAddress();
    $("#list").focus({ preventScroll: true });
  });
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea")) return;
    if (dialog.open) {
      const step = { ArrowRight: 1, j: 1, ArrowLeft: -1, k: -1 }[event.key];
      if (step) {
        event.preventDefault();
        item.move(step);
      }
    } else if (event.key === "/") {
      event.preventDefault();
      $("#questions").scrollIntoView({ behavior: "instant" }); // a smooth one would end where the first letter is typed
      $("#search").focus({ preventScroll: true });
    }
  });
  $("#search").addEventListener("keydown", (event) => {
    if (event.key === "Escape") $("#search").blur();
    if (event.key === "Enter" || event.key === "ArrowDown") {
      event.preventDefault();
      $("#list").focus();
    }
  });
}

setUpTheme();
setUpLegend();
setUpMatrix();
setUpPrint();
setUpList((place) => showQuestion(list.found[place], true), sortBy);
setUpFilters();
setUpItem();
change(filters);
addEventListener("hashchange", () => readAddress(false));
Promise.all([loadWordings(), setUpDrill(showGroup)]).then(() => {
  drawRows();
  document.documentElement.dataset.ready = "true";
  readAddress(true);
});
