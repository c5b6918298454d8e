"use strict";
// Filters and pages the responses of one run. Text reaches the page as text only, never as markup.
const PER_PAGE = 10;

function make(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

function fill(select, values, any) {
  if (any) select.append(new Option("any", ""));
  values.forEach(([value, label]) => select.append(new Option(label, value)));
}

function grade(value) {
  return value === null || value === undefined ? "-" : String(value);
}

function cellOf(name, cell) {
  const node = make("div", "cell");
  const head = make("h4", "", name + " ");
  node.append(head);
  if (cell === null) {
    node.append(make("p", "", "no response"));
    return node;
  }
  const did = cell.declined === null || cell.declined === undefined ? "" : cell.declined ? ", declined" : ", not declined";
  head.append(make("span", "grades", `compliance ${grade(cell.compliance)}, coherence ${grade(cell.coherence)}${did}`));
  const text = make("p", "text", cell.text === "" ? "(empty)" : cell.text + (cell.cut ? " [cut at the limit]" : ""));
  if (!cell.hidden) {
    node.append(text);
    return node;
  }
  const show = make("button", "show", "show response");
  show.type = "button";
  show.addEventListener("click", () => show.replaceWith(text));
  node.append(show);
  return node;
}

function fits(value, wanted) {
  if (wanted === "") return true;
  if (wanted === "null") return value === null || value === undefined;
  return String(value) === wanted;
}

function browse(section) {
  const holder = section.querySelector("script.data");
  if (!holder) return;
  const data = JSON.parse(holder.textContent);
  const form = section.querySelector("form");
  const [back, on] = section.querySelectorAll(".pages button");
  const unique = (key) => [...new Set(data.prompts.map((prompt) => prompt[key]))].filter(Boolean).sort();
  fill(form.kind, unique("kind").map((value) => [value, value]), true);
  fill(form.category, unique("category").map((value) => [value, value]), true);
  fill(form.variant, data.variants.map((name, place) => [place, name]), false);
  form.variant.selectedIndex = data.variants.length > 1 ? 1 : 0;
  let page = 0;

  function chosen() {
    const words = form.text.value.toLowerCase();
    const cells = data.cells[Number(form.variant.value)];
    return data.prompts.map((_, place) => place).filter((place) => {
      const prompt = data.prompts[place];
      const cell = cells[place] || {};
      return fits(prompt.kind, form.kind.value) && fits(prompt.category, form.category.value)
        && prompt.text.toLowerCase().includes(words)
        && ["compliance", "coherence", "declined"].every((name) => fits(cell[name], form[name].value));
    });
  }

  function draw() {
    const places = chosen();
    page = Math.min(page, Math.max(0, Math.ceil(places.length / PER_PAGE) - 1));
    const shown = places.slice(page * PER_PAGE, (page + 1) * PER_PAGE);
    const first = places.length ? page * PER_PAGE + 1 : 0;
    section.querySelector(".count").textContent =
      `${places.length} of ${data.prompts.length} prompts; ${first} to ${first ? first + shown.length - 1 : 0} shown`;
    section.querySelector(".rows").replaceChildren(...shown.map((place) => {
      const prompt = data.prompts[place];
      const row = make("div", "row");
      const head = make("p", "prompt", prompt.text + " ");
      head.append(make("span", "", [prompt.kind, prompt.category].filter(Boolean).join(", ")));
      const cells = make("div", "cells");
      data.variants.forEach((name, number) => cells.append(cellOf(name, data.cells[number][place])));
      row.append(head, cells);
      return row;
    }));
    back.disabled = page === 0;
    on.disabled = (page + 1) * PER_PAGE >= places.length;
  }

  ["input", "change"].forEach((name) => form.addEventListener(name, () => { page = 0; draw(); }));
  form.addEventListener("submit", (event) => event.preventDefault());
  back.addEventListener("click", () => { page -= 1; draw(); });
  on.addEventListener("click", () => { page += 1; draw(); });
  draw();
}

document.querySelectorAll("section[data-run]").forEach(browse);
