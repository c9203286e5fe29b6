// The list of questions: only the rows in sight exist.

const MARKS = { [RIGHT]: "right", [WRONG]: "wrong", [SILENT]: "silent", [FAILED]: "failed" };
const SAID = ["not asked", "right", "wrong", "no letter", "failed"];
const HEADS = [
  ["key", "Image", "key-of"], ["subtask", "Subtask", "subtask"], ["", "Question", "wording"],
  ["area", "Defect area", "right-side area"], ["right", "Right", "right-side score"],
];
const list = { found: new Uint32Array(0), current: 0, row: 36, open: () => {}, sort: () => {} };

/** Make the list; `open` gets a place in it, `sort` the name of a column. */
function setUpList(open, sort) {
  Object.assign(list, { open, sort });
  const grid = $("#list");
  grid.style.setProperty("--models", MODELS);
  grid.classList.toggle("areas-unknown", !page.groups.area);
  list.head = make("div", { class: "head", role: "row", "aria-rowindex": 1 });
  list.rows = make("div", { class: "rows", role: "rowgroup" });
  grid.append(list.head, list.rows);
  grid.addEventListener("scroll", drawRows, { passive: true });
  new ResizeObserver(measureRows).observe(grid);
  grid.addEventListener("keydown", moveInList);
  list.rows.addEventListener("click", (event) => {
    const row = event.target.closest(".row");
    if (row) list.open(Number(row.dataset.place));
  });
}

function drawHead(filters) {
  const cells = HEADS.map(([sort, title, kind]) => {
    if (!sort) return make("span", { role: "columnheader", class: kind }, title);
    const state = filters.sort !== sort ? "none" : filters.down ? "descending" : "ascending";
    const button = make("button", { type: "button" }, title);
    button.addEventListener("click", () => list.sort(sort));
    return make("span", { role: "columnheader", class: kind, "aria-sort": state }, button);
  });
  const marks = page.models.map((model, m) => {
    const mark = swatch(m);
    mark.setAttribute("viewBox", "8 0 18 16");
    mark.setAttribute("width", 18);
    return make("span", { title: model.title }, mark);
  });
  list.head.replaceChildren(...cells, make("span", { role: "columnheader", class: "marks", "aria-label": "Answers by model" }, ...marks));
}

/** Rows are as high as the style has them, which goes by the window's width. */
function measureRows() {
  const high = parseFloat(getComputedStyle($("#list")).getPropertyValue("--row"));
  if (high !== list.row) {
    const place = $("#list").scrollTop / list.row;
    list.row = high;
    list.rows.style.height = list.found.length ? `${list.found.length * high}px` : "";
    $("#list").scrollTop = place * high;
  }
  drawRows();
}

/** Show these questions from the top. */
function showList(found, filters) {
  list.found = found;
  list.current = 0;
  const grid = $("#list");
  grid.setAttribute("aria-rowcount", found.length + 1);
  grid.scrollTop = 0;
  list.rows.style.height = found.length ? `${found.length * list.row}px` : "";
  drawHead(filters);
  drawRows();
}

function drawRows() {
  const grid = $("#list");
  if (!list.found.length) {
    list.rows.replaceChildren(make("p", { class: "empty" }, "No question passes these filters."));
    grid.removeAttribute("aria-activedescendant");
    return;
  }
  const first = Math.max(0, Math.floor(grid.scrollTop / list.row) - 6);
  const last = Math.min(list.found.length, Math.ceil((grid.scrollTop + grid.clientHeight) / list.row) + 6);
  const rows = [];
  for (let place = first; place < last; place++) rows.push(rowOf(place));
  list.rows.replaceChildren(...rows);
  if (document.getElementById(`row-${list.current}`)) grid.setAttribute("aria-activedescendant", `row-${list.current}`);
  else grid.removeAttribute("aria-activedescendant");
}

function rowOf(place) {
  const q = list.found[place], image = imageOf[q];
  const { object, kind, file } = nameOf(image);
  const area = page.images.area[image];
  const text = wording.of === null ? "" : wording.texts[wording.of[q]];
  const key = make(
    "span", { role: "gridcell", class: "key-of", title: page.images.key[image] },
    spoken(object), make("span", { class: "soft" }, `  ${spoken(kind)} / ${file}`),
  );
  const row = make(
    "div", { class: place === list.current ? "row current" : "row", role: "row", id: `row-${place}`,
      "aria-rowindex": place + 2, "aria-selected": place === list.current, "data-place": place },
    key,
    make("span", { role: "gridcell", class: "subtask soft" }, page.subtasks[subtaskOf[q]].title),
    make("span", { role: "gridcell", class: "wording", title: text }, text),
    make("span", { role: "gridcell", class: "right-side area soft" }, area === null ? "" : percent(100 * area)),
    make("span", { role: "gridcell", class: "right-side score", "aria-label": `${rightCount[q]} of ${askedCount[q]} right` }, `${rightCount[q]}/${askedCount[q]}`),
    make("span", { role: "gridcell", class: "marks" }, ...page.models.map((_, m) => markOf(q, m))),
  );
  row.style.transform = `translateY(${place * list.row}px)`;
  return row;
}

/** One model's letter in a little box that says right or wrong. */
function markOf(q, m) {
  const state = states[m][q];
  const letter = state === RIGHT || state === WRONG ? page.letters[m][q] : state === FAILED ? "!" : state === SILENT ? "\u2013" : "";
  const told = `${page.models[m].title}: ${SAID[state]}`;
  return make("span", { class: `cell ${MARKS[state] ?? ""}`, title: told, role: "img", "aria-label": told }, letter);
}

/** Mark a place of the list and bring it into sight. */
function goTo(place) {
  list.current = Math.max(0, Math.min(list.found.length - 1, place));
  const grid = $("#list");
  const top = list.current * list.row, head = list.head.offsetHeight;
  if (top < grid.scrollTop) grid.scrollTop = top;
  if (top + list.row > grid.scrollTop + grid.clientHeight - head) grid.scrollTop = top + list.row - grid.clientHeight + head;
  drawRows();
}

function moveInList(event) {
  if (event.target.closest(".head") && event.key === "Enter") return;
  const leap = Math.floor($("#list").clientHeight / list.row) - 2;
  const steps = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1, PageDown: leap, PageUp: -leap, Home: -Infinity, End: Infinity };
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Enter" && list.found.length) list.open(list.current);
  else if (event.key in steps) goTo(list.current + steps[event.key]);
  else return;
  event.preventDefault();
}
