// What every part uses: elements made from plain text, packed data, colours, and the figures' controls.

const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];

/** An element. Texts become text nodes, never markup; attributes are named by this script alone. */
function make(name, attributes = {}, ...inside) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (key === "class") node.className = value;
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...inside.filter((part) => part !== null && part !== undefined && part !== ""));
  return node;
}

/** JSON that was packed into a script element: base64 of gzip. */
async function unpack(id) {
  const packed = atob(document.getElementById(id).textContent);
  const bytes = Uint8Array.from(packed, (char) => char.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).json();
}

const page = JSON.parse($("#columns").textContent);
const MODELS = page.models.length;

const percent = (value, digits = 1) => `${value.toFixed(digits)} %`;
const whole = (value) => value.toLocaleString("en-US");
const spoken = (name) => name.replaceAll("_", " ");
const series = (model) => `s${model % 10}`;

/** The mark of a model, as the legend has it. */
function swatch(model) {
  return $(`.names [data-model="${model}"] svg`).cloneNode(true);
}

/** Fill a select with [value, text] pairs. */
function fill(select, pairs, value) {
  select.replaceChildren(...pairs.map(([key, text]) => make("option", { value: key }, text)));
  if (value !== undefined) select.value = value;
}

/** Something kept from visit to visit, where the browser keeps anything for files. */
const memory = {
  get(key) {
    try {
      return localStorage.getItem(key);
    } catch {
      return null;
    }
  },
  set(key, value) {
    try {
      localStorage.setItem(key, value);
    } catch {
      // A page without storage forgets the choice; nothing else is lost.
    }
  },
};

function setUpTheme() {
  const root = document.documentElement;
  const kept = memory.get("emit-bench-theme");
  if (kept === "light" || kept === "dark") root.dataset.theme = kept;
  $("#theme").addEventListener("click", () => {
    const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
    root.dataset.theme = (root.dataset.theme ?? system) === "dark" ? "light" : "dark";
    memory.set("emit-bench-theme", root.dataset.theme);
  });
}

/** Models of the figures fade when their name in the legend is pressed. */
function setUpLegend() {
  for (const button of $$(".names .series")) {
    button.addEventListener("click", () => {
      const off = button.getAttribute("aria-pressed") === "true";
      button.setAttribute("aria-pressed", String(!off));
      for (const node of $$(`.chart .m${button.dataset.model}`)) node.classList.toggle("faded", off);
    });
  }
}

function setUpMatrix() {
  const select = $("#matrix-metric");
  select?.addEventListener("change", () => {
    for (const table of $$(".matrix")) table.hidden = table.dataset.metric !== select.value;
  });
}

/** What is folded away is printed all the same. */
function setUpPrint() {
  let shut = [];
  addEventListener("beforeprint", () => {
    shut = $$(".fold:not([open])");
    for (const fold of shut) fold.open = true;
  });
  addEventListener("afterprint", () => {
    for (const fold of shut) fold.open = false;
  });
}
