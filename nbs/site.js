// What the theme leaves open: a search that knows whole words and works from the disk, boxes that scroll, and paper.
(() => {
  "use strict";
  const all = (what) => [...document.querySelectorAll(what)];
  const offset = document.querySelector('meta[name="smalldocs:offset"]').content;

  // A page from the disk may not fetch the search index; there it is loaded as a script.
  if (location.protocol === "file:") {
    const ask = window.fetch;
    window.fetch = (address, ...rest) => !String(address).endsWith("search.json") ? ask(address, ...rest)
      : new Promise((done, failed) => {
        const script = document.createElement("script");
        script.onload = () => done({ json: async () => window.searchIndex });
        script.onerror = failed;
        script.src = `${offset}site_libs/search.js`;
        document.head.append(script);
      });
  }

  // Whole words first, as they are written (INS, not "inside"), titles before text; letters that are only alike come last.
  const Alike = window.Fuse;
  const quality = (text, { word, whole, any, inside }) =>
    text === word ? 30 : whole.test(text) ? 10 : any.test(text) ? 6 : inside.test(text) ? 1 : 0;
  const score = ({ section, title, text }, word) =>
    Math.max(4 * quality(section, word), 3 * quality(title, word), quality(text, word));
  const near = (entry, { whole, any }) => {
    const at = Math.max(0, [whole, any].map((form) => entry.text.search(form)).find((place) => place >= 0) ?? 0);
    return { ...entry, text: entry.text.slice(Math.max(0, at - 60)) };
  };
  window.Fuse = class {
    constructor(entries, options) { this.entries = entries; this.options = options; }
    search(asked, { limit }) {
      const words = asked.split(/\s+/).filter(Boolean).map((word) => {
        const plain = word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"), alone = `(?<![^\\W_])${plain}(?![^\\W_])`;
        return { word, whole: new RegExp(alone), any: new RegExp(alone, "i"), inside: new RegExp(plain, "i") };
      });
      const sum = (parts) => parts.every(Boolean) ? parts.reduce((total, part) => total + part) : 0;
      const scored = this.entries.map((entry) => [entry, sum(words.map((word) => score(entry, word)))])
        .filter(([, points]) => points).sort(([, left], [, right]) => right - left);
      if (scored.length) return scored.slice(0, limit).map(([entry]) => ({ item: near(entry, words[0]) }));
      this.alike ??= new Alike(this.entries, this.options);
      return this.alike.search(asked, { limit });
    }
  };

  // A box that is wider than its place scrolls, so the keyboard must reach it.
  const boxes = () => all(".cell-output-display, .sd-table, math[display=block], main pre").forEach((box) => {
    const scrolls = box.scrollWidth > box.clientWidth + 1 && getComputedStyle(box).overflowX !== "visible";
    if (scrolls) Object.assign(box, { tabIndex: 0, role: "group", ariaLabel: "wider than the page; scrolls sideways" });
    else ["tabindex", "role", "aria-label"].forEach((name) => box.removeAttribute(name));
  });
  addEventListener("load", boxes);
  addEventListener("resize", boxes);

  // The chapter that is open is in sight in the list of chapters.
  const list = document.querySelector("#quarto-sidebar"), open = list && list.querySelector("[aria-current]");
  if (open) list.scrollTop = open.offsetTop - list.clientHeight / 2;

  // Paper is white: print in the light theme.
  const sheets = all("link.quarto-color-scheme"), page = document.documentElement;
  let screen = null;
  addEventListener("beforeprint", () => {
    screen ??= { dark: page.classList.contains("quarto-dark"), media: sheets.map((sheet) => sheet.media) };
    sheets.forEach((sheet) => { sheet.media = sheet.dataset.mode === "light" ? "all" : "not all"; });
    page.classList.remove("quarto-dark");
  });
  addEventListener("afterprint", () => {
    if (!screen) return;
    sheets.forEach((sheet, rank) => { sheet.media = screen.media[rank]; });
    page.classList.toggle("quarto-dark", screen.dark);
    screen = null;
  });
})();
