// What check_site.py asks of an open page. Each question answers with a list of faults, in words.
window.reader = (() => {
  const all = (what, where = document) => [...where.querySelectorAll(what)];
  const name = (el) => `<${el.tagName.toLowerCase()}> ${(el.getAttribute("aria-label") || el.innerText || el.id || el.className || "")
    .toString().trim().replace(/\s+/g, " ").slice(0, 40)}`;
  const several = (faults) => faults.length > 3 ? [...faults.slice(0, 3), `... and ${faults.length - 3} more like this`] : faults;
  const shown = (el) => el.checkVisibility({ visibilityProperty: true, opacityProperty: false });
  const scrolls = (el) => ["auto", "scroll"].includes(getComputedStyle(el).overflowX);
  const inScroller = (el) => { for (let up = el; up; up = up.parentElement) if (scrolls(up)) return true; return false; };

  // Mark one element for every way in which text is shown, so that contrast is measured once for each, not 10,000 times.
  const markKindsOfText = () => {
    const around = new Map([[null, { back: "", opacity: 1 }]]), kinds = new Set();
    for (const el of all("body, body *")) {
      const style = getComputedStyle(el), outer = around.get(el.parentElement) || around.get(null);
      const back = /, 0\)$/.test(style.backgroundColor) ? outer.back : outer.back + style.backgroundColor;
      around.set(el, { back, opacity: outer.opacity * style.opacity });
      if (![...el.childNodes].some((node) => node.nodeType === 3 && node.data.trim()) || !shown(el)) continue;
      const kind = [back, outer.opacity * style.opacity, style.color, style.fontSize, style.fontWeight, style.textDecorationLine].join();
      if (!kinds.has(kind)) el.dataset.kindOfText = kinds.add(kind).size;
    }
  };

  const pictures = () => several(all("main img, main svg").filter((el) => shown(el)).flatMap((el) => {
    const words = (el.getAttribute("alt") || el.getAttribute("aria-label") || "").trim();
    const drawn = el.tagName !== "IMG" || (el.complete && el.naturalWidth);
    return drawn ? (words.length < 20 ? [`a picture says ${JSON.stringify(words)} to a reader who cannot see it`] : [])
      : ["a picture is not there"];
  }));

  // What sticks out of the window and cannot be reached by scrolling inside a box of its own. On paper no box scrolls.
  const cutOff = (paper = false) => {
    const wide = document.documentElement.scrollWidth - innerWidth;
    const out = all("body :not(pre > code)").filter((el) => shown(el) && el.getBoundingClientRect().width && !el.closest(".visually-hidden, #skip")
      && (el.getBoundingClientRect().right > innerWidth + 1 || (paper && scrolls(el) && el.scrollWidth > el.clientWidth + 1))
      && (paper || !inScroller(el)));
    const outermost = out.filter((el) => !out.includes(el.parentElement));
    return [...(wide > 0 ? [`the page is ${wide} px too wide`] : []), ...several(outermost.map((el) => `cut off on the right: ${name(el)}`))];
  };

  // Call only after the Tab key was pressed, so that the browser shows focus as it does for the keyboard.
  const keyboard = () => {
    const faults = [], reachable = all("a[href], button, input, select, textarea, summary, [tabindex]");
    for (const el of reachable.filter((el) => shown(el) && el.tabIndex >= 0 && !el.disabled)) {
      el.focus();
      if (document.activeElement !== el) { faults.push(`cannot be focused: ${name(el)}`); continue; }
      const style = getComputedStyle(el), box = el.getBoundingClientRect();
      if (style.outlineStyle === "none" && style.boxShadow === "none") faults.push(`focus is not seen: ${name(el)}`);
      if (!box.width || box.right <= 0 || box.left >= innerWidth || box.bottom + scrollY <= 0) faults.push(`focus is off the page: ${name(el)}`);
      if (el.tabIndex > 0) faults.push(`jumps the queue of the Tab key: ${name(el)}`);
    }
    const clicked = all("[onclick], [data-bs-toggle], [role=button]").filter((el) => shown(el) && el.tabIndex < 0);
    document.activeElement.blur();
    return [...several(faults), ...several(clicked.map((el) => `only a mouse can use: ${name(el)}`))];
  };

  // Paper of the given height in px: figures whole, nothing of the screen's furniture, dark letters.
  const paper = (height) => {
    const cut = all("main img, main svg, main figure").filter((el) => shown(el) && el.getBoundingClientRect().height > height);
    const split = all("main figure, main tr").filter((el) => shown(el) && getComputedStyle(el).breakInside !== "avoid");
    const [red, green, blue] = getComputedStyle(document.querySelector("main p, main")).color.match(/[\d.]+/g).map(Number);
    const furniture = all("#quarto-header, #quarto-sidebar, #quarto-margin-sidebar, .code-copy-button").filter((el) => shown(el));
    return [...several(cut.map((el) => `higher than the paper: ${name(el)}`)), ...several(split.map((el) => `may be cut by the end of a page: ${name(el)}`)),
      ...(red + green + blue > 300 ? ["pale letters on white paper"] : []), ...several(furniture.map((el) => `printed, though of no use on paper: ${name(el)}`))];
  };

  return { markKindsOfText, pictures, cutOff, keyboard, paper };
})();
