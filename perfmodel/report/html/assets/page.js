// The page says everything without this: it adds sorting, a switch of theme, sliders, and one button for all that is folded.
// It writes text alone, never markup, and reads nothing but this page.
"use strict";

const UNITS = { T: 1e12, B: 1e9, M: 1e6, ms: 1e-3, us: 1e-6, min: 60, h: 3600, d: 86400 };

// The number that a cell begins with, in the unit that follows it; text where there is none
function valueOf(cell) {
  const text = cell.textContent.trim();
  const found = text.replace(/^\+-|[,$]/g, "").match(/^\[?([-+]?\d+\.?\d*(?:e[-+]?\d+)?)\s*([a-zA-Z]*)/);
  return found ? Number(found[1]) * (UNITS[found[2]] ?? 1) : text;
}

function compared(one, other) {
  if (one === "" || other === "") return (one === "") - (other === "");
  if (typeof one === "number" && typeof other === "number") return one - other;
  return String(one).localeCompare(String(other));
}

function sortBy(head, place) {
  const table = head.closest("table");
  const descending = head.ariaSort === "descending" || (head.ariaSort === null && head.classList.contains("number"));
  const isDown = head.ariaSort === null ? descending : head.ariaSort === "ascending";
  for (const other of table.tHead.rows[0].cells) other.ariaSort = null;
  head.ariaSort = isDown ? "descending" : "ascending";
  const rows = [...table.tBodies[0].rows].map((row) => [valueOf(row.cells[place]), row]);
  rows.sort(([one], [other]) => (isDown && one !== "" && other !== "" ? -1 : 1) * compared(one, other));
  table.tBodies[0].append(...rows.map(([, row]) => row));
}

for (const table of document.querySelectorAll("table")) {
  if (table.tBodies[0].rows.length < 3) continue;
  for (const [place, head] of [...table.tHead.rows[0].cells].entries()) {
    if (head.textContent === "") continue;
    const button = document.createElement("button");
    button.append(...head.childNodes);
    button.title = "Sort";
    button.addEventListener("click", () => sortBy(head, place));
    head.append(button);
  }
}

function tool(name, act) {
  const button = document.createElement("button");
  button.textContent = name;
  button.addEventListener("click", act);
  document.querySelector(".tools").append(button);
}

tool("Light / dark", () => {
  const root = document.documentElement;
  const isDark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = isDark ? "light" : "dark";
});
// What is folded opens where a link leads into it, also in browsers that do not do so by themselves
function unfold() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (let each = target?.closest("details"); each; each = each.parentElement.closest("details")) each.open = true;
  target?.scrollIntoView();
}
addEventListener("hashchange", unfold);
if (location.hash) unfold();

// On paper every part is open, and closed again as it was
let folded = [];
addEventListener("beforeprint", () => {
  folded = [...document.querySelectorAll("details.part:not([open])")];
  for (const each of folded) each.open = true;
});
addEventListener("afterprint", () => {
  for (const each of folded) each.open = false;
});

function dollars(amount) {
  for (const [unit, letter] of [[1e9, "B"], [1e6, "M"]]) {
    if (amount >= unit) return `$${(amount / unit).toPrecision(4)}${letter}`;
  }
  return `$${Number(amount.toPrecision(4)).toLocaleString("en-US")}`;
}

// The numbers at a glance follow the sliders: each combination was predicted, and is looked up here
function live(box) {
  const grid = JSON.parse(box.dataset.grid);
  const split = (texts) => Object.fromEntries(Object.entries(texts).map(([name, text]) => [name, text.split("|")]));
  const texts = split(grid.texts), notes = split(grid.notes);
  const axes = [...box.querySelectorAll("[data-axis]")], price = box.querySelector("[data-price]");
  const tiles = [...document.querySelectorAll("[data-quantity]")].map((tile) => {
    const [number, note] = [tile.querySelector("b"), tile.querySelector("small")];
    return { tile, number, note, own: [number.textContent, note?.textContent ?? ""] };
  });
  const ownPrice = price?.value;

  const show = () => {
    let point = 0;
    for (const [place, input] of axes.entries()) {
      point = point * grid.shape[place] + Number(input.value);
      const label = input.dataset.labels.split("|")[Number(input.value)];
      input.previousElementSibling.textContent = label;
      input.setAttribute("aria-valuetext", label);
    }
    const isMoved = axes.some((input, place) => Number(input.value) !== grid.here[place]);
    if (price) price.previousElementSibling.textContent = Number(price.value) ? `$${Number(price.value)}` : "not given";
    for (const { tile, number, note, own } of tiles) {
      const name = tile.dataset.quantity;
      let told = !isMoved ? own : texts[name] ? [texts[name][point], notes[name][point]] : ["-", "not worked out here"];
      if (name === "cost" && price && ((isMoved && !texts.cost) || price.value !== ownPrice)) {
        const hours = Number(texts.hours[point].replaceAll(",", "")), each = Number(price.value);
        told = each && hours ? [dollars(hours * each), `at $${each} of a GPU-hour`] : ["-", "no price"];
      }
      number.textContent = told[0];
      if (note) note.textContent = told[1];
      tile.classList.toggle("moved", told !== own);
    }
    const words = isMoved ? `${texts.time[point]} an iteration (${notes.time[point]}), MFU ${texts.mfu[point]}` : "";
    box.querySelector(".now output").textContent = texts.time[point] === "cannot be" ? "This layout cannot be." : words;
  };
  for (const input of box.querySelectorAll("input")) input.addEventListener("input", show);
  box.querySelector("button").addEventListener("click", () => {
    for (const [place, input] of axes.entries()) input.value = grid.here[place];
    if (price) price.value = ownPrice;
    show();
  });
  box.hidden = false;
  const alone = box.parentElement.querySelector(".alone");
  if (alone) alone.open = false;
  show();
}

for (const box of document.querySelectorAll("[data-grid]")) live(box);

if (document.querySelector("details")) {
  tool("Unfold / fold all", () => {
    const all = [...document.querySelectorAll("details")];
    const isOpen = all.every((each) => each.open);
    for (const each of all) each.open = !isOpen;
  });
}
