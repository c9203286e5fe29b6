// Where a model fails: bars by dataset, product, kind of defect, area, and size of the image.

const drill = { scores: null, choose: () => {} };
const DRILL_ORDERS = [["weakest", "Weakest first"], ["natural", "By name or size"], ["most", "Most questions first"]];

/** Draw the panels and keep them in step with their controls; `choose` gets a group that was clicked. */
async function setUpDrill(choose) {
  fill($("#drill-model"), page.models.map((model, m) => [String(m), model.title]), "0");
  fill($("#drill-metric"), page.metrics.map((metric) => [metric.key, metric.title]));
  fill($("#drill-sort"), DRILL_ORDERS);
  drill.choose = choose;
  drill.scores = await unpack("drill-data");
  for (const id of ["drill-model", "drill-metric", "drill-sort"]) $(`#${id}`).addEventListener("change", drawDrill);
  drawDrill();
}

function drawDrill() {
  const model = Number($("#drill-model").value);
  const metric = $("#drill-metric").value;
  const panels = drill.scores.map(({ key, scores }) => drillPanel(key, scores[metric]?.[model] ?? [], model, metric));
  const stack = (keys) => make("div", { class: "stack" }, ...panels.filter((panel) => panel && keys.includes(panel.dataset.key)));
  const shown = panels.some(Boolean) ? [stack(["dataset", "area", "size"]), stack(["object"]), stack(["kind"])] : [];
  $("#drill-panels").replaceChildren(...(shown.length ? shown : [make("p", { class: "key" }, "All questions of this score are of one group: there is nothing to tell apart.")]));
}

/** One panel: a line a group, [percent, low, high, questions]; nothing where there is but one to look at. */
function drillPanel(key, groups, model, metric) {
  const { title, labels } = page.groups[key];
  const found = groups.map((score, group) => ({ score, group })).filter(({ score }) => score !== null);
  if (found.length < 2) return null;
  const sort = $("#drill-sort").value;
  if (sort === "weakest") found.sort((one, other) => one.score[0] - other.score[0]);
  if (sort === "most") found.sort((one, other) => other.score[3] - one.score[3]);
  const lines = found.map(({ score, group }) => make("li", {}, drillLine(key, labels[group], group, score, model, metric)));
  return make("div", { class: "panel", "data-key": key }, make("h3", {}, title, make("small", {}, `${found.length} groups`)), make("ul", {}, ...lines));
}

function drillLine(key, label, group, [value, low, high, n], model, metric) {
  const track = make("span", { class: `track ${series(model)}`, "aria-hidden": "true" });
  for (const [kind, from, to] of [["fill", 0, value], ["span", low, high], ["point", value, value]]) {
    const part = make("span", { class: kind });
    part.style.left = `${from}%`;
    if (kind !== "point") part.style.width = `${to - from}%`;
    track.append(part);
  }
  const told = `${spoken(label)}: ${percent(value)} (${low.toFixed(1)} to ${high.toFixed(1)}), ${whole(n)} questions`;
  const line = make(
    "button", { type: "button", class: "weak", title: told, "aria-label": `${told}. Show the wrong answers.` },
    make("span", { class: "name" }, spoken(label)), track,
    make("span", { class: "value" }, value.toFixed(1)), make("span", { class: "n" }, whole(n)),
  );
  line.addEventListener("click", () => drill.choose(key, group, model, metric));
  return line;
}
