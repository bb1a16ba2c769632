// What check_site.py asks of an open page. Each question answers with a list of faults, in words.
window.reader = (() => {
  const all = (what) => [...document.querySelectorAll(what)];
  const shown = (el) => el.checkVisibility({ visibilityProperty: true });
  const visible = (what) => all(what).filter(shown);
  const box = (el) => el.getBoundingClientRect();
  const scrolls = (el) => ["auto", "scroll"].includes(getComputedStyle(el).overflowX);
  const name = (el) => {
    const words = el.getAttribute("aria-label") || el.innerText || el.id || String(el.className);
    return `<${el.tagName.toLowerCase()}> ${words.trim().replace(/\s+/g, " ").slice(0, 40)}`;
  };
  const several = (faults) => faults.length <= 3 ? faults
    : [...faults.slice(0, 3), `... and ${faults.length - 3} more like this`];
  const named = (elements, fault) => several(elements.map((el) => `${fault}: ${name(el)}`));

  // Mark one element for every way in which text is shown that no page before had: contrast is measured once for each.
  let kinds = new Set();
  const markKindsOfText = () => {
    const around = new Map([[null, { back: "", opacity: 1 }]]);
    for (const el of all("body, body *")) {
      const style = getComputedStyle(el), outer = around.get(el.parentElement) || around.get(null);
      const back = /, 0\)$/.test(style.backgroundColor) ? outer.back : outer.back + style.backgroundColor;
      const opacity = outer.opacity * style.opacity;
      around.set(el, { back, opacity });
      if (![...el.childNodes].some((node) => node.nodeType === 3 && node.data.trim()) || !shown(el)) continue;
      const { color, fontSize, fontWeight, textDecorationLine } = style;
      const kind = [back, opacity, color, fontSize, fontWeight, textDecorationLine].join();
      if (!kinds.has(kind)) el.dataset.kindOfText = kinds.add(kind).size;
    }
  };

  // Serious and critical faults by axe-core, which has to be loaded; by one of its rules or by all. Kinds of text that
  // were good on other pages are known.
  const axe = async (rule, known) => {
    kinds = new Set(known);
    markKindsOfText();
    window.axe.configure({ rules: [{ id: "color-contrast", selector: "[data-kind-of-text]" }] });
    const options = { resultTypes: ["violations"], preload: false, ...(rule ? { runOnly: [rule] } : {}) };
    const { violations } = await window.axe.run(document, options);
    const where = (nodes) => nodes.slice(0, 3).map(({ target }) => target.join(" ")).join("; ");
    return violations.filter(({ impact }) => ["serious", "critical"].includes(impact))
      .map(({ id, help, nodes }) => `${id}: ${help}, ${nodes.length} times: ${where(nodes)}`);
  };

  const pictures = () => several(visible("main img, main svg").flatMap((el) => {
    const words = (el.getAttribute("alt") || el.getAttribute("aria-label") || "").trim();
    if (el.tagName === "IMG" && !(el.complete && el.naturalWidth)) return ["a picture is not there"];
    return words.length < 20 ? [`a picture says ${JSON.stringify(words)} to a reader who cannot see it`] : [];
  }));

  // What sticks out of the window and cannot be reached by scrolling in a box of its own. On paper no box scrolls.
  const cutOff = (paper = false) => {
    const scrolled = (el) => el && (scrolls(el) || scrolled(el.parentElement));
    const out = visible("body :not(pre > code)").filter((el) => {
      if (!box(el).width || el.closest(".visually-hidden, #skip")) return false;
      const beyond = box(el).right > innerWidth + 1;
      return paper ? beyond || (scrolls(el) && el.scrollWidth > el.clientWidth + 1) : beyond && !scrolled(el);
    });
    const wide = document.documentElement.scrollWidth - innerWidth;
    const outermost = out.filter((el) => !out.includes(el.parentElement));
    return [...(wide > 0 ? [`the page is ${wide} px too wide`] : []), ...named(outermost, "cut off on the right")];
  };

  // Ask only after a key was pressed: then the browser shows the focus as it does for the keyboard.
  const keyboard = () => {
    const faults = [];
    for (const el of visible("a[href], button, input, select, textarea, summary, [tabindex]")) {
      if (el.tabIndex < 0 || el.disabled) continue;
      el.focus();
      const style = getComputedStyle(el), { width, left, right, bottom } = box(el);
      const seen = style.outlineStyle !== "none" || style.boxShadow !== "none";
      if (document.activeElement !== el) faults.push(`cannot be focused: ${name(el)}`);
      else if (!seen) faults.push(`focus is not seen: ${name(el)}`);
      if (!width || right <= 0 || left >= innerWidth || bottom + scrollY <= 0) faults.push(`focus is off the page: ${name(el)}`);
      if (el.tabIndex > 0) faults.push(`jumps the queue of the Tab key: ${name(el)}`);
    }
    document.activeElement.blur();
    const mouse = visible("[onclick], [data-bs-toggle], [role=button]").filter((el) => el.tabIndex < 0);
    return [...several(faults), ...named(mouse, "only a mouse can use")];
  };

  // Paper of the given height in px: figures whole, nothing of the screen's furniture, dark letters.
  const paper = (height) => {
    const [red, green, blue] = getComputedStyle(document.querySelector("main p, main")).color.match(/[\d.]+/g).map(Number);
    const whole = (el) => getComputedStyle(el).breakInside === "avoid";
    return [
      ...named(visible("main img, main svg, main figure").filter((el) => box(el).height > height), "higher than the paper"),
      ...named(visible("main figure, main tr").filter((el) => !whole(el)), "may be cut by the end of a page"),
      ...named(visible("#quarto-header, #quarto-sidebar, #quarto-margin-sidebar, .code-copy-button"), "of no use on paper"),
      ...(red + green + blue > 300 ? ["pale letters on white paper"] : []),
    ];
  };

  // The slide that is shown: what sticks out of the window, or reaches into the line at its foot.
  const slide = () => {
    const foot = document.querySelector(".slides .present .present .source, .slides .present .source");
    const inside = visible(".slides .present .present *").filter((el) => !el.closest(".source, aside") && box(el).width);
    const out = inside.filter((el) => {
      const { left, right, top, bottom } = box(el);
      return left < -1 || top < -1 || right > innerWidth + 1 || bottom > Math.min(innerHeight, foot ? box(foot).top : innerHeight) + 1
        || (el.tagName === "PRE" && el.scrollWidth > el.clientWidth + 1);
    });
    return named(out.filter((el) => !out.includes(el.parentElement)), "does not fit on the slide");
  };

  return { axe, kindsOfText: () => [...kinds], pictures, cutOff, keyboard, paper, slide };
})();
