"use strict";
// Sorts the tables of the page by a column, and copies one in another form.

function number(text) {
  const found = /-?\d+(\.\d+)?/.exec(text.replaceAll(",", ""));
  return found === null ? null : Number(found[0]);
}

function sort(table, column, heading) {
  const rows = [...table.tBodies[0].rows];
  const down = heading.getAttribute("aria-sort") !== "descending";
  const value = (row) => row.cells[column].textContent.trim();
  const numeric = rows.filter((row) => number(value(row)) !== null).length > rows.length / 2;
  rows.sort((one, two) => {
    const [a, b] = [value(one), value(two)];
    const order = numeric ? (number(a) ?? -Infinity) - (number(b) ?? -Infinity) : a.localeCompare(b);
    return down ? -order : order;
  });
  table.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
  heading.setAttribute("aria-sort", down ? "descending" : "ascending");
  table.tBodies[0].append(...rows);
}

async function copy(text, button) {
  const name = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  button.textContent = "copied";
  setTimeout(() => { button.textContent = name; }, 1200);
}

document.querySelectorAll("figure.table").forEach((figure) => {
  const table = figure.querySelector("table");
  const forms = JSON.parse(figure.querySelector("script.forms").textContent);
  table.querySelectorAll("th").forEach((heading, column) => {
    heading.tabIndex = 0;
    heading.addEventListener("click", () => sort(table, column, heading));
    heading.addEventListener("keydown", (event) => { if (event.key === "Enter") sort(table, column, heading); });
  });
  figure.querySelectorAll(".copy button").forEach((button) => {
    button.addEventListener("click", () => copy(forms[button.dataset.form], button));
  });
});
