// The page says everything without this: it adds sorting, a switch of theme, and one button for all that is folded.
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
if (document.querySelector("details")) {
  tool("Unfold / fold all", () => {
    const all = [...document.querySelectorAll("details")];
    const isOpen = all.every((each) => each.open);
    for (const each of all) each.open = !isOpen;
  });
}
