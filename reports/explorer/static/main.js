// Filters, the address, the keyboard: what ties list and question together.

let filters = noFilters();
const FIELDS = { dataset: "f-dataset", object: "f-object", kind: "f-kind", subtask: "f-subtask", condition: "f-condition",
  area: "f-area", size: "f-size", preset: "f-preset", a: "f-a", b: "f-b" };
const ANY = ["", "any"];

function setUpFilters() {
  for (const key of ["dataset", "object", "kind", "area", "size"]) {
    if (page.groups[key]) fillGroup(key);
    else $(`#f-${key}`).closest("label").hidden = true;
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
  form.addEventListener("reset", () => queueMicrotask(() => change(noFilters())));
  form.addEventListener("change", readForm);
  $("#search").addEventListener("input", readForm);
}

/** The values of one group; products of another dataset than the one chosen are left out. */
function fillGroup(key) {
  const { labels, of } = page.groups[key];
  let used = new Set(of);
  if (key !== "dataset" && filters.dataset !== "") {
    const dataset = Number(filters.dataset);
    used = new Set(of.filter((_, image) => page.groups.dataset.of[image] === dataset));
  }
  const pairs = labels.map((label, group) => [String(group), spoken(label)]).filter(([group]) => used.has(Number(group)));
  fill($(`#f-${key}`), [ANY, ...pairs]);
}

function readForm() {
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
  $("#shares").replaceChildren(make("span", { class: "lead" }, "Right among these, each question alike:"), ...shares);
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
  $("#questions").scrollIntoView();
  $("#list").focus({ preventScroll: true });
}

/** Filters and question as the part of the address behind "#?"; not before the first one was read. */
function writeAddress() {
  if (!document.documentElement.dataset.ready) return;
  const plain = noFilters(), told = new URLSearchParams();
  for (const [key, value] of Object.entries(filters)) {
    if (key === "models" || value === plain[key]) continue;
    told.set(key, page.groups[key] ? page.groups[key].labels[Number(value)] : String(value));
  }
  filters.models.forEach((state, m) => state && told.set(`model.${page.models[m].id}`, state));
  if (item.question !== null) told.set("item", `${page.images.key[imageOf[item.question]]}:${page.questions.number[item.question]}`);
  const address = told.size ? `#?${told}` : location.hash.startsWith("#?") ? "#questions" : location.hash;
  if (address !== location.hash) history.replaceState(null, "", address || "#");
}

/** The reverse; what names nothing here is passed over. */
function readAddress() {
  if (!location.hash.startsWith("#?")) return;
  const told = new URLSearchParams(location.hash.slice(2));
  const next = noFilters();
  for (const [key, value] of told) {
    if (page.groups[key]) {
      const group = page.groups[key].labels.indexOf(value);
      next[key] = group < 0 ? "" : String(group);
    } else if (key.startsWith("model.")) {
      const m = page.models.findIndex((model) => model.id === key.slice(6));
      if (m >= 0 && MODEL_STATES.some(([state]) => state === value)) next.models[m] = value;
    } else if (key === "down") next.down = value === "true";
    else if (key === "sort") next.sort = value in SORT_KEYS ? value : "position";
    else if (key === "search" || key in FIELDS) next[key] = value;
  }
  if (!states[Number(next.a)]) next.a = "0";
  if (!states[Number(next.b)]) next.b = "0";
  const wanted = told.get("item");
  change(next);
  $("#questions").scrollIntoView({ behavior: "instant" });
  const q = wanted ? questionOf(wanted) : -1;
  if (q >= 0) showQuestion(q);
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

async function showQuestion(q) {
  const place = list.found.indexOf(q);
  if (place >= 0) goTo(place);
  await openItem(q, place < 0 ? null : place);
  writeAddress();
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
    item.question = null;
    writeAddress();
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
      $("#questions").scrollIntoView();
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
setUpList((place) => showQuestion(list.found[place]), sortBy);
setUpFilters();
setUpItem();
change(filters);
addEventListener("hashchange", readAddress);
Promise.all([loadWordings(), setUpDrill(showGroup)]).then(() => {
  drawRows();
  document.documentElement.dataset.ready = "true";
  readAddress();
});
