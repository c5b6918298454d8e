"use strict";
// Filters and pages the responses of each run. Text reaches the page as text only, never as markup.
const PER_PAGE = 10;
const FIELDS = ["show", "kind", "category", "variant", "judge", "outcome", "compliance", "coherence", "declined", "text"];
const [COMPLIANCE, COHERENCE, DECLINED, OUTCOME, REASON] = [0, 1, 2, 3, 4];
const FEW_WORDS = 3;
const MOST_WORDS = 600; // of a text whose differences are shown: the table of words grows with the square
let consented = false; // once a page: what was not declined is shown
const browsers = [];

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

async function unpack(holder) {
  const bytes = Uint8Array.from(atob(holder.textContent.trim()), (sign) => sign.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
}

function told(value) {
  return value === null || value === undefined ? "-" : String(value);
}

function gradeWords(grade) {
  if (!grade) return "not graded";
  const said = grade[DECLINED] === null ? "" : grade[DECLINED] ? ", declined" : ", not declined";
  const outcome = grade[OUTCOME] ? `, ${grade[OUTCOME]}` : "";
  return `compliance ${told(grade[COMPLIANCE])}, coherence ${told(grade[COHERENCE])}${said}${outcome}`;
}

// The words of two texts in order, as runs: kept, gone from the first, or new in the second (longest common subsequence).
function differences(before, after) {
  const [a, b] = [before, after].map((text) => text.split(/\s+/).filter(Boolean).slice(0, MOST_WORDS));
  const table = Array.from({length: a.length + 1}, () => new Uint16Array(b.length + 1));
  for (let i = a.length - 1; i >= 0; i -= 1) {
    for (let j = b.length - 1; j >= 0; j -= 1) {
      table[i][j] = a[i] === b[j] ? table[i + 1][j + 1] + 1 : Math.max(table[i + 1][j], table[i][j + 1]);
    }
  }
  const runs = []; // {kept: [...]} and {gone: [...], come: [...]} in turn
  let [i, j] = [0, 0];
  while (i < a.length || j < b.length) {
    const same = i < a.length && j < b.length && a[i] === b[j];
    let last = runs.at(-1);
    if (!last || same !== Boolean(last.kept)) runs.push(last = same ? {kept: []} : {gone: [], come: []});
    if (same) { last.kept.push(a[i]); i += 1; j += 1; }
    else if (j >= b.length || (i < a.length && table[i + 1][j] >= table[i][j + 1])) { last.gone.push(a[i]); i += 1; }
    else { last.come.push(b[j]); j += 1; }
  }
  return joined(runs);
}

// A few words that happen to stand in both, between two changes, are part of the change: so it can be read.
function joined(runs) {
  const found = [];
  runs.forEach((run, place) => {
    const between = place > 0 && place < runs.length - 1;
    const part = run.kept && between && run.kept.length < FEW_WORDS ? {gone: run.kept, come: run.kept} : run;
    const last = found.at(-1);
    if (last && last.gone && part.gone) { last.gone.push(...part.gone); last.come.push(...part.come); }
    else found.push(part.gone ? {gone: [...part.gone], come: [...part.come]} : part);
  });
  return found.flatMap((run) => (run.kept ? [["", run.kept]] : [["del", run.gone], ["ins", run.come]]))
    .filter(([, words]) => words.length).map(([tag, words]) => [tag, words.join(" ")]);
}

function textOf(cell, base) {
  const text = make("p", "text");
  if (base && base.text !== cell.text) {
    differences(base.text, cell.text).forEach(([tag, words]) => text.append(tag ? make(tag, "", words) : words, " "));
  } else {
    text.textContent = cell.text === "" ? "(empty)" : cell.text;
  }
  if (cell.cut) text.append(" [cut at the limit]");
  return text;
}

function cellOf(name, cell, judges, base) {
  const node = make("div", "cell");
  node.append(make("h4", "", name));
  if (!cell) {
    node.append(make("p", "", "no response"));
    return node;
  }
  node.append(cell.hidden && !consented ? make("p", "grades", "(hidden)") : textOf(cell, base));
  const some = cell.grades.some(Boolean);
  cell.grades.forEach((grade, place) => {
    if (some && !grade) return;
    node.append(make("p", "grades", judges.length > 1 ? `${judges[place]}: ${gradeWords(grade)}` : gradeWords(grade)));
    if (grade && grade[REASON]) node.append(make("p", "reason", grade[REASON]));
  });
  return node;
}

function fits(value, wanted) {
  if (wanted === "") return true;
  if (wanted === "null") return value === null || value === undefined;
  return String(value) === wanted;
}

// Whether two judges of a response differ in a grade that both gave.
function differ(cell) {
  const given = cell ? cell.grades.filter(Boolean) : [];
  return [COMPLIANCE, COHERENCE, DECLINED].some((place) => {
    const values = given.map((grade) => grade[place]).filter((value) => value !== null);
    return new Set(values).size > 1;
  });
}

function fillForm(form, data) {
  const unique = (key) => [...new Set(data.prompts.map((prompt) => prompt[key]))].filter(Boolean).sort();
  const outcomes = new Set(data.cells.flat().flatMap((cell) => (cell ? cell.grades.map((grade) => grade && grade[OUTCOME]) : [])));
  fill(form.kind, unique("kind").map((value) => [value, value]), true);
  fill(form.category, unique("category").map((value) => [value, value]), true);
  fill(form.variant, data.variants.map((name) => [name, name]), false);
  fill(form.judge, data.judges.map((name) => [name, name]), false);
  fill(form.outcome, [...outcomes].filter(Boolean).sort().map((value) => [value, value]), true);
  form.variant.selectedIndex = data.variants.length > 1 ? 1 : 0;
}

class Browser {
  constructor(section, data) {
    Object.assign(this, {section, data, page: 0, prompt: null, number: section.dataset.run});
    this.form = section.querySelector("form");
    [this.back, this.on] = section.querySelectorAll(".pages button");
    this.lower = data.prompts.map((prompt) => prompt.text.toLowerCase());
    fillForm(this.form, data);
    this.listen();
    this.draw();
  }

  listen() {
    ["input", "change"].forEach((name) => this.form.addEventListener(name, () => this.changed()));
    this.form.addEventListener("submit", (event) => event.preventDefault());
    this.back.addEventListener("click", () => this.turn(-1));
    this.on.addEventListener("click", () => this.turn(1));
    this.section.querySelector("button[name=consent]").addEventListener("click", () => {
      consented = true;
      browsers.forEach((browser) => browser.draw());
    });
  }

  changed() {
    this.page = 0;
    this.prompt = null;
    this.draw();
    this.tell();
  }

  turn(by) {
    this.page = Math.max(0, this.page + by);
    this.draw();
    this.tell();
  }

  // The filters as the page's address, so that a place can be sent to somebody.
  tell(prompt) {
    const words = new URLSearchParams({run: this.number});
    FIELDS.forEach((name) => { if (this.form[name].value) words.set(name, this.form[name].value); });
    if (this.form.diff.checked) words.set("diff", "1");
    if (this.page) words.set("page", this.page + 1);
    if (prompt) words.set("prompt", prompt);
    history.replaceState(null, "", `#${words}`);
  }

  read(words) {
    FIELDS.forEach((name) => {
      const field = this.form[name];
      const wanted = words.get(name) ?? (["variant", "judge"].includes(name) ? field.value : "");
      if (field.tagName !== "SELECT" || [...field.options].some((option) => option.value === wanted)) field.value = wanted;
    });
    this.form.diff.checked = words.get("diff") === "1";
    this.page = Math.max(0, (Number(words.get("page")) || 1) - 1);
    this.prompt = words.get("prompt");
    if (this.prompt) this.page = Math.floor(this.chosen().indexOf(this.place(this.prompt)) / PER_PAGE);
    this.draw();
    (this.section.querySelector(".row.chosen") || this.section.querySelector(".browser")).scrollIntoView();
  }

  place(id) {
    return this.data.prompts.findIndex((prompt) => prompt.id === id);
  }

  isShown(place, base, cell) {
    const judge = Math.max(0, this.form.judge.selectedIndex);
    const [mine, theirs] = [cell, base].map((one) => (one && one.grades[judge]) || [null, null, null, null, null]);
    const show = this.form.show.value;
    return (show !== "freed" || (theirs[DECLINED] === true && mine[DECLINED] === false))
      && (show !== "lost" || (theirs[DECLINED] === false && mine[DECLINED] === true))
      && (show !== "judges" || differ(cell) || differ(base))
      && fits(mine[COMPLIANCE], this.form.compliance.value) && fits(mine[COHERENCE], this.form.coherence.value)
      && fits(mine[DECLINED], this.form.declined.value) && fits(mine[OUTCOME], this.form.outcome.value);
  }

  chosen() {
    const words = this.form.text.value.toLowerCase();
    const [base, cells] = [this.data.cells[0], this.data.cells[Math.max(0, this.form.variant.selectedIndex)]];
    const holds = (cell) => cell && (consented || !cell.hidden) && cell.text.toLowerCase().includes(words);
    return this.data.prompts.map((_, place) => place).filter((place) => {
      const prompt = this.data.prompts[place];
      return fits(prompt.kind, this.form.kind.value) && fits(prompt.category, this.form.category.value)
        && this.isShown(place, base[place], cells[place])
        && (!words || this.lower[place].includes(words) || holds(base[place]) || holds(cells[place]));
    });
  }

  draw() {
    const places = this.chosen();
    this.page = Math.max(0, Math.min(this.page, Math.ceil(places.length / PER_PAGE) - 1));
    const shown = places.slice(this.page * PER_PAGE, (this.page + 1) * PER_PAGE);
    const first = places.length ? this.page * PER_PAGE + 1 : 0;
    const last = first ? first + shown.length - 1 : 0;
    this.section.querySelector(".count").textContent = `${places.length} of ${this.data.prompts.length} prompts; ${first} to ${last} shown`;
    this.section.querySelector(".rows").replaceChildren(...shown.map((place) => this.row(place)));
    this.back.disabled = this.page === 0;
    this.on.disabled = (this.page + 1) * PER_PAGE >= places.length;
    this.askConsent();
  }

  askConsent() {
    const hidden = this.data.cells.flat().filter((cell) => cell && cell.hidden).length;
    this.section.querySelector(".consent").hidden = consented || hidden === 0;
    this.section.querySelector("button[name=consent]").textContent =
      `Show the ${hidden} responses that were not declined, on the whole page`;
  }

  row(place) {
    const prompt = this.data.prompts[place];
    const row = make("div", prompt.id === this.prompt ? "row chosen" : "row");
    const head = make("p", "prompt", `${prompt.text} `);
    head.append(make("span", "", [prompt.kind, prompt.category].filter(Boolean).join(", ") + " "));
    const link = make("a", "", "link");
    link.href = `#run=${this.number}&prompt=${encodeURIComponent(prompt.id)}`;
    head.append(link);
    const cells = make("div", "cells");
    const base = this.data.cells[0][place];
    const wanted = Math.max(0, this.form.variant.selectedIndex);
    const readable = base && (consented || !base.hidden);
    new Set([0, wanted]).forEach((number) => {
      const against = this.form.diff.checked && number > 0 && readable ? base : null;
      cells.append(cellOf(this.data.variants[number], this.data.cells[number][place], this.data.judges, against));
    });
    row.append(head, cells);
    return row;
  }
}

function follow() {
  const words = new URLSearchParams(location.hash.slice(1));
  const browser = browsers.find((one) => one.number === words.get("run"));
  if (browser) browser.read(words);
}

// The browser that is on the screen.
function inSight() {
  return browsers.find((one) => one.section.getBoundingClientRect().bottom > 0) || browsers[0];
}

document.addEventListener("keydown", (event) => {
  const browser = inSight();
  if (!browser || event.ctrlKey || event.metaKey || event.altKey || /INPUT|SELECT|TEXTAREA/.test(event.target.tagName)) return;
  if (event.key === "ArrowRight" && !browser.on.disabled) browser.turn(1);
  else if (event.key === "ArrowLeft" && !browser.back.disabled) browser.turn(-1);
  else if (event.key === "/") { event.preventDefault(); browser.form.text.focus(); }
  else if (event.key === "d") { browser.form.diff.checked = !browser.form.diff.checked; browser.draw(); browser.tell(); }
});

Promise.all([...document.querySelectorAll("section[data-run]")].map(async (section) => {
  const holder = section.querySelector("script.data");
  if (holder) browsers.push(new Browser(section, await unpack(holder)));
})).then(() => {
  document.body.dataset.ready = "yes";
  follow();
  window.addEventListener("hashchange", follow);
});
