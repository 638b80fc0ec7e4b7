// The tree of a run: WAI-ARIA's tree view by mouse and keyboard, a filter, and each record in full when asked for.
"use strict";
(() => {
  const tree = document.getElementById("tree");
  const filter = document.getElementById("filter");
  const found = document.getElementById("found");
  const items = [...tree.querySelectorAll("li")];
  let records = null;

  const above = (item) => item.parentElement.closest("li");
  const within = (item) => item.querySelector(":scope > ul");
  const isOpen = (item) => item.getAttribute("aria-expanded") === "true";
  const shown = () => items.filter((item) => item.offsetParent !== null);

  function open(item, yes) {
    if (item.hasAttribute("aria-expanded")) item.setAttribute("aria-expanded", String(yes));
  }

  function go(item) {
    if (!item) return;
    tree.querySelector('[tabindex="0"]')?.setAttribute("tabindex", "-1");
    item.setAttribute("tabindex", "0");
    item.focus();
  }

  // A record is put on the page as text, when it is asked for: ten thousand at once would be slow.
  function show(item) {
    const there = item.querySelector(":scope > pre");
    if (there) { there.remove(); return; }
    records ??= JSON.parse(document.getElementById("records").textContent);
    const pre = document.createElement("pre");
    pre.textContent = JSON.stringify(records[Number(item.dataset.n)], null, 2);
    item.querySelector(":scope > .row").after(pre);
  }

  tree.addEventListener("click", (event) => {
    const row = event.target.closest(".row");
    if (!row) return;
    const item = row.parentElement;
    const onArrow = event.clientX - row.getBoundingClientRect().left < 20;
    go(item);
    if (onArrow && item.hasAttribute("aria-expanded")) open(item, !isOpen(item));
    else if (!String(window.getSelection())) show(item);
  });

  const keys = {
    ArrowDown: (item) => { const all = shown(); go(all[all.indexOf(item) + 1]); },
    ArrowUp: (item) => { const all = shown(); go(all[all.indexOf(item) - 1]); },
    ArrowRight: (item) => { if (within(item)) { if (isOpen(item)) go(within(item).firstElementChild); else open(item, true); } },
    ArrowLeft: (item) => { if (within(item) && isOpen(item)) open(item, false); else go(above(item)); },
    Home: () => go(shown()[0]),
    End: () => go(shown().at(-1)),
    Enter: show,
    " ": (item) => open(item, !isOpen(item)),
  };
  tree.addEventListener("keydown", (event) => {
    const act = keys[event.key];
    if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    act(event.target.closest("li"));
  });

  document.getElementById("open").addEventListener("click", () => items.forEach((item) => open(item, true)));
  document.getElementById("close").addEventListener("click", () => items.forEach((item) => open(item, false)));

  let texts = null;
  filter.addEventListener("input", () => {
    texts ??= items.map((item) => item.firstElementChild.textContent.toLowerCase());
    const wanted = filter.value.trim().toLowerCase().split(/\s+/).filter(Boolean);
    const keep = new Set();
    let matches = 0;
    // Children come after their parents, so from the end a parent knows by its turn whether it is needed.
    for (let n = items.length - 1; n >= 0; n--) {
      const matching = wanted.every((word) => texts[n].includes(word));
      const needed = keep.has(items[n]);
      items[n].hidden = !matching && !needed;
      items[n].classList.toggle("passed", !matching && needed);
      if (!matching && !needed) continue;
      if (matching) matches++;
      if (wanted.length && needed) open(items[n], true);
      const parent = above(items[n]);
      if (parent) keep.add(parent);
    }
    found.textContent = wanted.length ? `${matches} of ${items.length} shown` : "";
    if (!tree.querySelector('li[tabindex="0"]:not([hidden])')) {
      tree.querySelector('[tabindex="0"]')?.setAttribute("tabindex", "-1");
      tree.querySelector("li:not([hidden])")?.setAttribute("tabindex", "0");
    }
  });
})();
