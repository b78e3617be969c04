"use strict";
/* Filters, sorts and shows single images from the data in the page. No library, no request. */
const {classes: CLASSES, suites: SUITES, models: MODELS, cases: CASES} = JSON.parse(document.getElementById("case-data").textContent);
/* Level of an unchanged pixel in a picture of changes, and the levels above it for the largest change. */
const MIDDLE = 128, REACH = 127;
/* Colours over a grey image and of changes down and up, as in the report's explanations. */
const HEAT = [230, 94, 0], DOWN = [94, 60, 153], UP = [230, 97, 1], STILL = [247, 247, 247];
const $ = (id) => document.getElementById(id);
const spell = (value) => String(Number(value.toPrecision(4)));
const percent = (share) => `${(100 * share).toFixed(share > 0.001 && share < 0.1 ? 1 : 0)} %`;
const dialog = $("detail"), slider = $("radius"), sides = [...dialog.querySelectorAll(".sides section")];
let shown = [...CASES.keys()], open = -1;

function html(name, parent, text, attributes = {}) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return parent.appendChild(node);
}

const suite = () => SUITES[$("suite").value];
const model = (side) => MODELS[$(side ? "second" : "first").value];
const answers = (index, side = 0) => CASES[index].models[model(side).name];
const attacked = (index, side = 0) => answers(index, side).suites[suite().name];
const best = (answer) => answer.probabilities.indexOf(Math.max(...answer.probabilities));
const rejected = (answer, side = 0) => model(side).detector !== null && answer.score > model(side).detector.threshold;
const radius = (eps) => (suite().norm === "Linf" ? `${eps} = ${spell(eps * 255)}/255` : `${eps} (L2)`);

/** What a suite does to an image, in words, and the tone of the words. */
function verdict(found) {
  if (found.fooled_at === 0) return ["wrong without an attack", "bad"];
  if (found.fooled_at === null) return ["withstands all radii", "good"];
  return [`fooled at ε ${found.fooled_at}`, "doubt"];
}

/** Filter -> the options' texts by value, and whether image `index` passes the value. */
const FILTERS = {
  patient: [() => Object.fromEntries([...new Set(CASES.map((each) => each.patient ?? "?"))].map((number) => [number, number === "?" ? "unknown" : number])),
    (index, value) => String(CASES[index].patient ?? "?") === value],
  class: [() => ({...CLASSES}), (index, value) => CASES[index].label === Number(value)],
  answer: [() => ({right: "right", wrong: "wrong", ...CLASSES}), (index, value) => {
    const answer = best(answers(index)), right = answer === CASES[index].label;
    return value === "right" ? right : value === "wrong" ? !right : answer === Number(value);
  }],
  fooled: [() => ({0: "wrong without an attack", ...Object.fromEntries(suite().eps.map((eps) => [`ε ${eps}`, `at ε ${eps}`])), never: "at no radius"}),
    (index, value) => ({0: "0", null: "never"})[attacked(index).fooled_at] === value || `ε ${attacked(index).fooled_at}` === value],
  attack: [() => Object.fromEntries(CASES.map((_, index) => attacked(index).fooled_by).filter((name) => name !== null && name !== "natural").sort().map((name) => [name, name])),
    (index, value) => attacked(index).fooled_by === value],
  detector: [() => (model(0).detector ? {accepts: "accepts the clean image", rejects: "rejects the clean image", caught: "rejects what fools", missed: "accepts what fools"} : {}),
    (index, value) => {
      const label = CASES[index].label, fools = attacked(index).versions.filter((each) => best(each) !== label);
      const clean = rejected(answers(index));
      return {accepts: !clean, rejects: clean, caught: fools.some((each) => rejected(each)), missed: fools.some((each) => !rejected(each))}[value];
    }],
};
/** Order -> its text, and the number that images are sorted by. */
const ORDERS = {
  data: ["as in the data", (index) => index],
  sure: ["largest margin of the truth first", (index) => answers(index).margin],
  unsure: ["smallest margin of the truth first", (index) => -answers(index).margin],
  weak: ["fooled at the smallest radius first", (index) => attacked(index).fooled_at ?? Infinity],
};

/** Offer the values of each filter for the selected model and suite; a value that is gone becomes `all`. */
function fill() {
  for (const [name, [options]] of Object.entries(FILTERS)) {
    const select = $(name), before = select.value, entries = Object.entries(options());
    select.replaceChildren();
    html("option", select, name === "detector" && !entries.length ? "no detector" : "all", {value: ""});
    for (const [value, text] of entries) html("option", select, text, {value});
    select.value = entries.some(([value]) => value === before) ? before : "";
    select.disabled = !entries.length;
  }
}

function list() {
  fill();
  const filters = Object.entries(FILTERS).filter(([name]) => $(name).value !== "");
  shown = [...CASES.keys()].filter((index) => filters.every(([name, [, passes]]) => passes(index, $(name).value)));
  const [, key] = ORDERS[$("order").value];
  shown.sort((a, b) => (key(a) === key(b) ? a - b : key(a) - key(b)));
  $("count").textContent = `${shown.length} of ${CASES.length} images; answers of ${model(0).title} under ${suite().name}`;
  const grid = $("grid");
  grid.replaceChildren();
  for (const index of shown) {
    const each = CASES[index], button = html("button", html("li", grid, undefined, {id: `image-${each.image}`}), undefined, {type: "button", "data-index": index});
    html("img", button, undefined, {src: each.picture, alt: "", class: "pixels"});
    html("span", button, CLASSES[each.label], {class: "what"});
    html("span", button, `image ${each.image}${each.patient === null ? "" : `, patient ${each.patient}`}`, {class: "soft"});
    const answer = best(answers(index)), [words, tone] = verdict(attacked(index));
    if (answer !== each.label) html("span", button, `answer: ${CLASSES[answer]}`);
    html("span", button, words, {class: tone});
    if (rejected(answers(index))) html("span", button, "rejected by the detector", {class: "doubt"});
    button.addEventListener("click", () => show(index));
  }
}

/** Pixels, RGBA, of decoded pictures, which have one or more square tiles below each other. */
const decoded = new Map();
async function pixels(source) {
  if (!source) return null;
  if (!decoded.has(source)) {
    const image = new Image();
    image.src = source;
    await image.decode();
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.width, image.height];
    const context = canvas.getContext("2d", {willReadFrequently: true});
    context.drawImage(image, 0, 0);
    decoded.set(source, context.getImageData(0, 0, image.width, image.height).data);
  }
  return decoded.get(source);
}

/** Show an image, RGBA, on a square canvas. */
function paint(canvas, image) {
  const size = Math.sqrt(image.length / 4);
  if (canvas.width !== size) canvas.width = canvas.height = size;
  canvas.getContext("2d").putImageData(new ImageData(image, size, size), 0, 0);
}

/** The change of each value in [-1, 1] pixel units, four per pixel: tile number `tile` of a picture of changes. */
function changeOf(changes, tile, count, largest) {
  const found = new Float32Array(count), scale = largest / REACH;
  for (let i = 0, at = tile * count; i < count; i += 1, at += 1) found[i] = (changes[at] - MIDDLE) * scale;
  return found;
}

/** A clean image after a change; without one (null) the clean image. */
function changed(clean, change) {
  const image = new Uint8ClampedArray(clean);
  if (change) for (let i = 0; i < image.length; i += 1) if (i % 4 < 3) image[i] = clean[i] + 255 * change[i];
  return image;
}

/** A change as an image: grey ones in two colours, for down and up, others around a middle grey. */
function changeImage(change, count, factor) {
  const image = new Uint8ClampedArray(count).fill(255);
  for (let i = 0; i < count; i += 4) {
    const moved = change ? [change[i], change[i + 1], change[i + 2]].map((value) => Math.max(-1, Math.min(1, 2 * factor * value))) : [0, 0, 0];
    const grey = moved[0] === moved[1] && moved[1] === moved[2], end = moved[0] > 0 ? UP : DOWN;
    for (let k = 0; k < 3; k += 1) image[i + k] = grey ? STILL[k] + (end[k] - STILL[k]) * Math.abs(moved[k]) : 128 + 127 * moved[k];
  }
  return image;
}

/** Tile number `tile` of the maps over a grey version of an image, and whether the map has any value above 0. */
function overlay(maps, tile, base) {
  const image = new Uint8ClampedArray(base);
  let any = false;
  for (let i = 0, at = tile * base.length; i < base.length; i += 4, at += 4) {
    const grey = (base[i] + base[i + 1] + base[i + 2]) / 3, heat = (0.85 * maps[at]) / 255;
    any ||= maps[at] > 0;
    for (let k = 0; k < 3; k += 1) image[i + k] = grey + (HEAT[k] - grey) * heat;
  }
  return [image, any];
}

/** Build a side once per image: its canvases and the rows of its table, which the slider then changes. */
async function build(side) {
  const each = CASES[open], answer = answers(open, side), root = sides[side];
  const [clean, changes, maps] = await Promise.all([pixels(each.picture), pixels(answer.changes), pixels(answer.maps)]);
  root.replaceChildren();
  html("h3", root, model(side).title);
  const parts = {says: html("p", root, "", {class: "says"}), state: html("p", root, "", {class: "state"}), views: {}};
  const views = html("div", root, undefined, {class: "views"});
  for (const name of ["clean", "attacked", "change", "before", "after"]) {
    const figure = html("figure", views), mapped = name === "before" || name === "after";
    const kind = mapped && !maps ? "div" : "canvas";
    const node = kind === "div" ? html("div", figure, "no single network with feature maps", {class: "empty"}) : html("canvas", figure, undefined, {role: "img"});
    parts.views[name] = {node, caption: html("figcaption", figure)};
  }
  const table = html("table", root, undefined, {class: "bars"}), head = html("tr", html("thead", table));
  for (const text of ["class", "clean", "attacked"]) html("th", head, text, {scope: "col"});
  const body = html("tbody", table);
  parts.rows = CLASSES.map((name, k) => {
    const row = html("tr", body, undefined, k === each.label ? {class: "true"} : {});
    html("th", row, k === each.label ? `${name} (true)` : name, {scope: "row"});
    return [bar(row), bar(row)];
  });
  paint(parts.views.clean.node, clean);
  caption(parts.views.clean, "clean");
  drawMap(parts.views.before, maps && overlay(maps, 0, clean), "clean");
  const drawn = tiles(answer), ready = new Map(radii().map((eps) => [eps, version(answer, drawn, eps, clean, changes, maps)]));
  return {...parts, side, answer, ready};
}

function bar(row) {
  const cell = html("td", row, undefined, {class: "bar"});
  return {cell, text: html("span", cell)};
}

function setBar({cell, text}, share) {
  cell.style.setProperty("--share", share);
  text.textContent = share === null ? "–" : percent(share);
}

/** Position of each version in the pictures of changes: suite by suite, in the order of the data. */
function tiles(answer) {
  const found = new Map();
  for (const {versions} of Object.values(answer.suites)) for (const version of versions) found.set(version, found.size);
  return found;
}

/** Show a map, as `overlay` returns it; null where a model has none. */
function drawMap(view, map, what) {
  if (!map) return caption(view, `Grad-CAM, ${what}`);
  const [image, any] = map;
  paint(view.node, image);
  caption(view, any ? `Grad-CAM, ${what}` : `Grad-CAM, ${what}: empty`);
}

function caption(view, text) {
  view.caption.textContent = text;
  view.node.setAttribute("aria-label", text);
}

/** What one side shows at a radius (0: the clean image). All are drawn when an image opens, so that the slider waits for none. */
function version(answer, drawn, eps, clean, changes, maps) {
  const found = answer.suites[suite().name].versions.find((each) => each.eps === eps) ?? null, tile = found ? drawn.get(found) : -1;
  const change = found && changeOf(changes, tile, clean.length, found.largest), after = changed(clean, change);
  const reach = found ? (suite().norm === "Linf" ? eps : found.largest) : 0, factor = reach > 0 ? 0.5 / reach : 1;
  return {found, after, factor, change: changeImage(change, clean.length, factor), map: maps && overlay(maps, tile + 1, after)};
}

/** Show one side at a radius. */
function update(part, eps) {
  const {views, answer} = part, {found, after, factor, change, map} = part.ready.get(eps);
  paint(views.attacked.node, after);
  paint(views.change.node, change);
  drawMap(views.after, map, found ? "attacked" : "not attacked");
  caption(views.attacked, found ? "attacked" : "not attacked");
  caption(views.change, found ? `change ×${Number(factor.toPrecision(3))}` : "no change");
  words(part, found, answer.suites[suite().name], eps, CASES[open].label);
  part.rows.forEach(([left, right], k) => {
    setBar(left, answer.probabilities[k]);
    setBar(right, found ? found.probabilities[k] : null);
  });
}

/** The answer in words, and what the attack and the detector have to do with it. */
function words({says, state, answer, side}, version, found, eps, label) {
  const now = version ?? answer, chosen = best(now), right = chosen === label;
  says.replaceChildren();
  says.append("Answer: ");
  html("strong", says, `${CLASSES[chosen]} (${percent(now.probabilities[chosen])})`, {class: right ? "good" : "bad"});
  says.append(right ? ", right." : ", wrong.");
  if (now.score !== null) {
    const {name, threshold} = model(side).detector, out = rejected(now, side);
    html("span", says, ` Detector ${name}: ${out ? "rejects" : "accepts"} (score ${spell(now.score)}, threshold ${spell(threshold)}).`, {class: out ? "doubt" : ""});
  }
  if (version) state.textContent = `${version.attack}: ${right ? "fails" : "fools the model"} at ε ${eps} (${suite().norm} distance ${spell(version.distance)}).`;
  else if (eps === 0) state.textContent = `Clean image. Under ${suite().name}: ${verdict(found)[0]}.`;
  else if (found.fooled_at === 0) state.textContent = "The suite does not attack it: the model is wrong without an attack.";
  else state.textContent = `Not tried at ε ${eps}: attacks with a larger radius failed.`;
}

let built = [];
const radii = () => [0, ...suite().eps.filter((eps) => [0, 1].some((side) => attacked(open, side).versions.some((each) => each.eps === eps)))];

function slide() {
  const eps = radii()[slider.value], text = eps === 0 ? "0 (clean)" : radius(eps);
  dialog.querySelector("output").textContent = text;
  slider.setAttribute("aria-valuetext", text);
  for (const part of built) update(part, eps);
}

async function show(index) {
  open = index;
  const each = CASES[index];
  $("name").textContent = `Image ${each.image}${each.patient === null ? "" : `, patient ${each.patient}`}: ${CLASSES[each.label]}, under ${suite().name}`;
  const ready = await Promise.all([build(0), build(1)]);
  if (open !== index) return;
  built = ready;
  slider.max = radii().length - 1;
  slider.disabled = radii().length === 1;
  slider.value = slider.max;
  $("previous").disabled = shown[0] === index;
  $("next").disabled = shown.at(-1) === index;
  slide();
  if (!dialog.open) dialog.showModal();
  if (document.activeElement === document.body || document.activeElement?.disabled) slider.focus();
}

function step(by) {
  const next = shown[shown.indexOf(open) + by];
  if (next !== undefined) show(next);
}

for (const [value, [text]] of Object.entries(ORDERS)) html("option", $("order"), text, {value});
$("controls").addEventListener("change", list);
$("controls").addEventListener("reset", () => setTimeout(list));
$("controls").addEventListener("submit", (event) => event.preventDefault());
slider.addEventListener("input", slide);
$("previous").addEventListener("click", () => step(-1));
$("next").addEventListener("click", () => step(1));
$("close").addEventListener("click", () => dialog.close());
dialog.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "p") step(-1);
  if (event.key === "n") step(1);
});
dialog.addEventListener("close", () => $("grid").querySelector(`[data-index="${open}"]`)?.focus());

/** Open the image that the address names (`#image-12`), as the report's links do. */
function follow() {
  const index = CASES.findIndex((each) => `#image-${each.image}` === location.hash);
  if (index >= 0) show(index);
}

addEventListener("hashchange", follow);
list();
follow();
