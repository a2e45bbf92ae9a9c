"use strict";
// Boards only: choose an ε, filter rows, sort by a column. Without it every section is there, one after another.
(() => {
  const controls = document.querySelector(".controls");
  if (!controls) return;
  const sections = [...document.querySelectorAll("section.board")];
  const jump = controls.querySelector(".jump");
  const tools = controls.querySelector(".tools");
  const radios = [...tools.querySelectorAll("input[type=radio]")];
  const filter = tools.querySelector("input[type=search]");
  const rankable = tools.querySelector("input[type=checkbox]");
  const shown = tools.querySelector("[role=status]");

  const rows = new Map(sections.map((section) => [section, [...section.querySelectorAll("tbody > tr")]]));
  const words = new Map([...rows.values()].flat().map((row) =>
    [row, row.querySelector(".c-name").textContent.toLowerCase()]));

  function select(anchor) {
    const wanted = sections.find((section) => section.id === anchor) || sections[0];
    for (const section of sections) section.classList.toggle("off", section !== wanted);
    for (const radio of radios) radio.checked = radio.value === wanted.id;
    count();
  }

  function count() {
    const section = sections.find((one) => !one.classList.contains("off"));
    const all = rows.get(section);
    const left = all.filter((row) => !row.classList.contains("off")).length;
    shown.textContent = left === all.length ? `${all.length} shown` : `${left} of ${all.length} shown`;
  }

  function sift() {
    const asked = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const [row, text] of words) {
      const hit = asked.every((word) => text.includes(word)) && (!rankable.checked || "rankable" in row.dataset);
      row.classList.toggle("off", !hit);
    }
    count();
  }

  // The same column of every section, so that another ε keeps the order asked for.
  function sort(label, direction) {
    for (const section of sections) {
      const heads = [...section.querySelectorAll("thead th")];
      const column = heads.findIndex((head) => head.dataset.label === label);
      for (const head of heads) head.removeAttribute("aria-sort");
      if (column < 0) continue;
      heads[column].setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
      const text = heads[column].dataset.sort === "text";
      const key = new Map(rows.get(section).map((row) => {
        const cell = row.cells[column];
        if (text) return [row, cell.querySelector(".name").textContent];
        return [row, cell.dataset.value === "" ? null : Number(cell.dataset.value)];
      }));
      const order = [...rows.get(section)].sort((a, b) => {
        const [one, other] = [key.get(a), key.get(b)];
        if (one === null || other === null) return (one === null) - (other === null); // what is missing comes last
        const step = text ? one.localeCompare(other, "en", { numeric: true, sensitivity: "base" }) : one - other;
        return direction * step;
      });
      section.querySelector("tbody").append(...order);
    }
  }

  for (const head of document.querySelectorAll("section.board thead th[data-sort]")) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    head.dataset.label = button.textContent;
    button.addEventListener("click", () => {
      const first = head.dataset.sort === "down" ? -1 : 1;
      const now = { ascending: 1, descending: -1 }[head.getAttribute("aria-sort")];
      sort(head.dataset.label, now ? -now : first);
    });
  }

  for (const radio of radios) {
    radio.addEventListener("change", () => {
      select(radio.value);
      history.replaceState(null, "", `#${radio.value}`);
    });
  }
  filter.addEventListener("input", sift);
  rankable.addEventListener("change", sift);

  // The anchors hold no character that an address would escape: a hash is compared as it stands.
  const hash = () => location.hash.slice(1);
  const known = () => sections.some((section) => section.id === hash());
  function follow() {
    select(known() ? hash() : controls.dataset.headline);
  }
  addEventListener("hashchange", () => (known() || !hash()) && follow()); // an anchor of something else changes nothing
  addEventListener("pageshow", () => { // going back, a browser fills the controls in as they were left
    follow();
    sift();
  });

  document.documentElement.classList.add("chosen");
  jump.hidden = true;
  tools.hidden = false;
  follow();
})();
