"use strict";
// The page is whole without this script. It sorts tables and opens or closes details.

// What a column is sorted by: numbers first, then words, and what was not measured at the end.
function key(cell) {
  const text = cell.textContent.trim();
  const number = /^[<≈±]?\s*([+−-]?\d[\d,]*(\.\d+)?)/.exec(text);
  if (text === "" || text === "–") return [2, 0, ""];
  return number ? [0, parseFloat(number[1].replace("−", "-").replaceAll(",", "")), text] : [1, 0, text];
}

function compare(a, b) {
  return a[0] - b[0] || a[1] - b[1] || a[2].localeCompare(b[2], undefined, { numeric: true });
}

function makeSortable(table) {
  // A pair's two rows stay together: they are a body of their own.
  const bodies = [...table.tBodies];
  const whole = bodies.length > 1;
  const rows = whole ? bodies : [...bodies[0].rows];
  const head = [...table.tHead.rows[0].cells];
  if (rows.length < 3) return;
  head.forEach((cell, column) => {
    if (cell.hasAttribute("data-fixed")) return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...cell.childNodes);
    cell.append(button);
    button.addEventListener("click", () => {
      const last = cell.getAttribute("aria-sort");
      const next = last === null ? "ascending" : last === "ascending" ? "descending" : null;
      head.forEach((other) => other.removeAttribute("aria-sort"));
      if (next) cell.setAttribute("aria-sort", next);
      const keyed = rows.map((row) => [row, key((whole ? row.rows[0] : row).cells[column])]);
      if (next) {
        const sign = next === "ascending" ? 1 : -1;
        keyed.sort(([, a], [, b]) => (a[0] === 2 || b[0] === 2 ? a[0] - b[0] : sign * compare(a, b)));
      }
      (whole ? table : bodies[0]).append(...keyed.map(([row]) => row));
    });
  });
}

document.querySelectorAll("table.sortable").forEach(makeSortable);

// A box that has nothing to scroll needs no stop of the tab key.
const boxes = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    if (target.scrollWidth > target.clientWidth) target.tabIndex = 0;
    else target.removeAttribute("tabindex");
  }
});
document.querySelectorAll(".scroll, pre").forEach((box) => boxes.observe(box));

const details = [...document.querySelectorAll("section details")];
const contents = document.querySelector("nav details");
if (contents && matchMedia("(max-width: 40rem)").matches) contents.open = false;
if (contents && details.length) {
  const button = document.createElement("button");
  button.type = "button";
  const show = () => (button.textContent = details.every((each) => each.open) ? "Close all details" : "Open all details");
  button.addEventListener("click", () => {
    const open = !details.every((each) => each.open);
    details.forEach((each) => (each.open = open));
  });
  details.forEach((each) => each.addEventListener("toggle", show));
  show();
  contents.append(button);
}

// A closed detail is printed as well.
let closed = [];
addEventListener("beforeprint", () => {
  closed = details.filter((each) => !each.open);
  closed.forEach((each) => (each.open = true));
});
addEventListener("afterprint", () => closed.forEach((each) => (each.open = false)));
