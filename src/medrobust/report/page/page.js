"use strict";
/* Draws the page's charts from the data in the page, and makes tables sortable. No library, no request. */
/* Pixels of a chart: at most WIDEST across, less on a narrow page, so that text keeps its size. */
const WIDEST = 640, HEIGHT = 330, LEFT = 46, RIGHT = 20, TOP = 14, BOTTOM = 44;
/* Pixels across of a chart on paper: half a page, so that its text is as large as that of a table. */
const PAPER = 340;
/* A line with more points is drawn without dots, and its axis has round numbers. */
const MANY = 15;
const {charts: CHARTS, words: WORDS} = JSON.parse(document.getElementById("chart-data").textContent);

function svg(name, attributes, parent, text) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return parent ? parent.appendChild(node) : node;
}

function html(name, parent, text, attributes = {}) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return parent.appendChild(node);
}

const spell = (value) => String(Number(value.toPrecision(4)));
const colour = (index) => `var(--c${index % 8})`;
const bent = (chart, x) => (chart.bend > 0 ? Math.asinh(x / chart.bend) : x);

/** Evenly spaced round numbers from low to high. */
function ticks(low, high, wanted) {
  const raw = (high - low) / wanted || 1, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((f) => f * power).find((s) => s >= raw);
  const found = [];
  for (let t = Math.ceil(low / step) * step; t <= high + step / 1e6; t += step) found.push(Number(t.toPrecision(6)));
  return found;
}

/** Scales of a chart that is `width` pixels across: from data to pixels, and the x values that occur. */
function scales(chart, width) {
  const points = chart.series.flatMap((line) => line.points);
  const xs = [...new Set(points.map((p) => p[0]))].sort((a, b) => a - b);
  const top = chart.top ?? Math.max(...points.map((p) => p[1])) * 1.05;
  const low = bent(chart, xs[0]), span = bent(chart, xs.at(-1)) - low || 1;
  return {
    xs, top, width,
    x: (value) => LEFT + ((bent(chart, value) - low) / span) * (width - LEFT - RIGHT),
    y: (value) => HEIGHT - BOTTOM - (value / top) * (HEIGHT - TOP - BOTTOM),
  };
}

function drawAxes(root, chart, scale) {
  const right = scale.width - RIGHT;
  for (const t of ticks(0, scale.top, 5)) {
    svg("line", {class: "grid", x1: LEFT, x2: right, y1: scale.y(t), y2: scale.y(t)}, root);
    svg("text", {x: LEFT - 6, y: scale.y(t) + 4, "text-anchor": "end"}, root, spell(t));
  }
  svg("line", {class: "axis", x1: LEFT, x2: right, y1: scale.y(0), y2: scale.y(0)}, root);
  let end = -100;
  for (const x of scale.xs.length > MANY ? ticks(scale.xs[0], scale.xs.at(-1), 6) : scale.xs) {
    const centre = scale.x(x), half = 3.5 * spell(x).length + 2;
    if (centre - half < end) continue;
    svg("text", {x: centre, y: HEIGHT - BOTTOM + 16, "text-anchor": "middle"}, root, spell(x));
    end = centre + half;
  }
  svg("text", {x: (LEFT + right) / 2, y: HEIGHT - 6, "text-anchor": "middle"}, root, chart.x);
  const middle = (TOP + HEIGHT - BOTTOM) / 2;
  svg("text", {x: 12, y: middle, "text-anchor": "middle", transform: `rotate(-90 12 ${middle})`}, root, chart.y);
  if (chart.floor) {
    const height = scale.y(chart.floor[0]);
    svg("line", {class: "mark", x1: scale.x(0), x2: right, y1: height, y2: height}, root);
    svg("text", {x: right, y: height - 4, "text-anchor": "end"}, root, chart.floor[1]);
  }
  if (chart.mark && chart.mark[0] <= scale.xs.at(-1)) {
    const position = scale.x(chart.mark[0]), late = position > right - 98;
    svg("line", {class: "mark", x1: position, x2: position, y1: TOP, y2: scale.y(0)}, root);
    svg("text", {x: position + (late ? -4 : 4), y: TOP + 8, "text-anchor": late ? "end" : "start"}, root, chart.mark[1]);
  }
}

/** One line with its interval band and points, in a group that the legend can hide. */
function drawSeries(root, line, scale) {
  const group = svg("g", {}, root), at = (x, y) => `${scale.x(x).toFixed(1)},${scale.y(y).toFixed(1)}`;
  if (line.points.every((p) => p.length === 4)) {
    const band = [...line.points.map((p) => at(p[0], p[3])), ...line.points.toReversed().map((p) => at(p[0], p[2]))];
    svg("polygon", {class: "band", points: band.join(" "), fill: colour(line.colour)}, group);
  }
  const style = {fill: "none", stroke: colour(line.colour), "stroke-width": 2, "stroke-dasharray": line.dashed ? "2 4" : "none"};
  if (!line.loose) svg("polyline", {points: line.points.map((p) => at(p[0], p[1])).join(" "), ...style}, group);
  if (line.points.length <= MANY) for (const p of line.points) svg("circle", {cx: scale.x(p[0]), cy: scale.y(p[1]), r: 3, fill: colour(line.colour)}, group);
  return group;
}

/** A sample of a line for the legend and the tip. */
function drawKey(parent, line) {
  const key = svg("svg", {class: "key", viewBox: "0 0 26 10", "aria-hidden": "true"}, parent), stroke = colour(line.colour);
  if (!line.loose) svg("line", {x1: 0, x2: 26, y1: 5, y2: 5, stroke, "stroke-width": 2, "stroke-dasharray": line.dashed ? "2 4" : "none"}, key);
  if (line.points.length <= MANY) svg("circle", {cx: 13, cy: 5, r: 3, fill: stroke}, key);
}

function drawLegend(figure, chart, groups) {
  const legend = html("div", figure, undefined, {class: "legend"});
  chart.series.forEach((line, index) => {
    const button = html("button", legend, undefined, {type: "button", "aria-pressed": "true"});
    drawKey(button, line);
    button.append(line.name);
    button.addEventListener("click", () => {
      const shown = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(shown));
      groups[index].style.display = shown ? "" : "none";
      line.hidden = !shown;
    });
  });
}

/** Show the values of all visible lines at the x that is nearest to the pointer. */
function addTip(figure, root, chart, scale, groups) {
  const cursor = svg("line", {class: "cursor", y1: TOP, y2: HEIGHT - BOTTOM, visibility: "hidden"}, root);
  const tip = html("div", figure, undefined, {class: "tip", hidden: "", role: "status"});
  const hide = () => { tip.hidden = true; cursor.setAttribute("visibility", "hidden"); };
  const show = (event) => {
    const box = root.getBoundingClientRect(), pixel = ((event.clientX - box.left) / box.width) * scale.width;
    const x = scale.xs.reduce((a, b) => (Math.abs(scale.x(b) - pixel) < Math.abs(scale.x(a) - pixel) ? b : a));
    const found = chart.series.map((line, i) => [line, line.points.find((p) => p[0] === x), groups[i]])
      .filter(([, point, group]) => point && group.style.display !== "none").sort((a, b) => b[1][1] - a[1][1]);
    if (!found.length) return hide();
    cursor.setAttribute("x1", scale.x(x)); cursor.setAttribute("x2", scale.x(x)); cursor.setAttribute("visibility", "visible");
    tip.replaceChildren();
    html("strong", tip, `${chart.x.split(" (")[0]} = ${spell(x)}`);
    for (const [line, p] of found) {
      const row = html("div", tip);
      drawKey(row, line);
      html("span", row, line.name);
      html("span", row, p.length === 4 ? `${p[1].toFixed(3)} [${p[2].toFixed(3)}, ${p[3].toFixed(3)}]` : p[1].toFixed(3));
    }
    tip.hidden = false;
    const frame = figure.getBoundingClientRect(), left = box.left - frame.left + (scale.x(x) / scale.width) * box.width;
    tip.style.left = `${Math.max(0, Math.min(left + 12, frame.width - tip.offsetWidth))}px`;
    tip.style.top = `${box.top - frame.top + 8}px`;
  };
  root.addEventListener("pointermove", show);
  root.addEventListener("pointerdown", show);
  root.addEventListener("pointerleave", hide);
}

/** A slider over the x values (radii, shares), and the table for the selected one. */
function addSlider(figure, root, chart, scale) {
  const radii = Object.keys(chart.rows).sort((a, b) => a - b);
  const wanted = chart.mark ? chart.mark[0] : Number(radii.at(-1));
  const start = radii.reduce((best, r, i) => (Math.abs(r - wanted) < Math.abs(radii[best] - wanted) ? i : best), 0);
  const label = html("label", figure, chart.x.split(" (")[0], {class: "slider"});
  const input = html("input", label, undefined, {type: "range", min: 0, max: radii.length - 1, step: 1, value: start});
  const output = html("output", label);
  const cursor = svg("line", {class: "cursor", y1: TOP, y2: HEIGHT - BOTTOM}, root);
  const scroll = html("div", figure, undefined, {class: "scroll"}), table = html("table", scroll, undefined, {class: "sortable"});
  const head = html("tr", html("thead", table));
  chart.columns.forEach((name) => html("th", head, name, {scope: "col"}));
  const body = html("tbody", table);
  const update = () => {
    const radius = radii[input.value], pixel = scale.x(Number(radius)), linf = chart.x.includes("L∞");
    output.textContent = radius === "0" ? "0 (clean)" : radius + (linf ? ` = ${spell(radius * 255)}/255` : "");
    input.setAttribute("aria-valuetext", output.textContent);
    cursor.setAttribute("x1", pixel); cursor.setAttribute("x2", pixel);
    body.replaceChildren();
    for (const cells of chart.rows[radius]) {
      const row = html("tr", body);
      cells.forEach((cell, column) => {
        const node = html("td", row, column === 2 ? undefined : cell);
        if (WORDS[cell]) node.className = `word ${WORDS[cell]}`;
        if (column !== 2) return;
        node.className = "bar"; node.style.setProperty("--share", Number.parseFloat(cell) || 0);
        html("span", node, cell);
      });
    }
    sort(table);
  };
  input.addEventListener("input", update);
  sortable(table);
  update();
}

/** Sort a table's rows by the column whose head is marked: numbers by value, text by letter, dashes last. */
function sort(table) {
  const heads = [...table.tHead.rows[0].cells], index = heads.findIndex((head) => head.hasAttribute("aria-sort"));
  if (index < 0) return;
  const sign = heads[index].getAttribute("aria-sort") === "ascending" ? 1 : -1;
  const value = (row) => row.cells[index].textContent.trim(), rows = [...table.tBodies[0].rows];
  rows.sort((a, b) => {
    const [p, q] = [value(a), value(b)], [x, y] = [Number.parseFloat(p), Number.parseFloat(q)];
    if (p === "–" || q === "–") return (p === "–") - (q === "–");
    return sign * (Number.isNaN(x) || Number.isNaN(y) ? p.localeCompare(q) : x - y);
  });
  table.tBodies[0].append(...rows);
}

function sortable(table) {
  for (const head of table.tHead.rows[0].cells) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const next = head.getAttribute("aria-sort") === "descending" ? "ascending" : "descending";
      for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", next);
      sort(table);
    });
  }
}

/** Draw axes, lines and legend into a new box of the figure; return what slider and pointer need. */
function draw(figure, chart, kind, width) {
  const drawing = html("div", figure, undefined, {class: kind});
  const scale = scales(chart, width ?? Math.max(280, Math.min(WIDEST, drawing.clientWidth)));
  const root = svg("svg", {viewBox: `0 0 ${scale.width} ${HEIGHT}`, role: "img", "aria-label": `${chart.title}: ${chart.y} by ${chart.x}`}, drawing);
  drawAxes(root, chart, scale);
  const groups = chart.series.map((line) => drawSeries(root, line, scale));
  drawLegend(drawing, chart, groups);
  return {root, scale, groups};
}

/** Before printing: open what is folded, close it afterwards, and draw charts for paper with the visible lines. */
function onPaper() {
  document.querySelectorAll("details:not([open])").forEach((part) => {
    part.open = true;
    addEventListener("afterprint", () => { part.open = false; }, {once: true});
  });
  document.querySelectorAll("[data-chart]").forEach((figure) => {
    const chart = CHARTS[figure.dataset.chart], series = chart.series.filter((line) => !line.hidden);
    figure.querySelector(".paper")?.remove();
    if (series.length) draw(figure, {...chart, series}, "drawing paper", PAPER);
  });
}

document.querySelectorAll("table.sortable").forEach(sortable);
document.querySelectorAll("[data-chart]").forEach((figure) => {
  const chart = CHARTS[figure.dataset.chart], {root, scale, groups} = draw(figure, chart, "drawing");
  if (chart.rows) addSlider(html("div", figure, undefined, {class: "at"}), root, chart, scale);
  addTip(figure, root, chart, scale, groups);
});
addEventListener("beforeprint", onPaper);
