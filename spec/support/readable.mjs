// What a person needs of a page, by the Web Content Accessibility Guidelines 2.2 level AA as far as a program can see them: for people
// with a phone, with a keyboard alone, with a screen reader, with weak eyes.

// Runs in the page. -> texts of what is wrong
function inspect() {
    const problems = [];
    const channels = (color) => /^rgba?\(([^)]+)\)/.exec(color)[1].split(/[ ,/]+/).map(Number);
    const luminance = (color) => {
        const [r, g, b] = channels(color).slice(0, 3).map((value) => value / 255)
            .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const contrast = (a, b) => {
        const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
        return (high + 0.05) / (low + 0.05);
    };
    const background = (element) => {
        for (let each = element; each; each = each.parentElement) {
            const color = getComputedStyle(each).backgroundColor;
            if (channels(color)[3] !== 0) return color;
        }
        return "rgb(255, 255, 255)";
    };
    const words = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (words.nextNode()) {
        const text = words.currentNode.textContent.trim();
        if (!text) continue;
        const style = getComputedStyle(words.currentNode.parentElement);
        const ratio = contrast(style.color, background(words.currentNode.parentElement));
        if (parseFloat(style.fontSize) < 16) problems.push(`"${text}" is ${style.fontSize} high`);
        if (ratio < 4.5) problems.push(`"${text}" has a contrast of ${ratio.toFixed(2)}`);
    }
    const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
    if (wide > 0) problems.push(`it is ${wide} px too wide`);
    for (const control of document.querySelectorAll("a, button, input")) {
        const { width, height } = control.getBoundingClientRect();
        if (width < 24 || height < 24) problems.push(`"${control.innerText}" is ${width} x ${height} px`);
    }
    if (!document.documentElement.lang) problems.push("it has no language");
    if (!document.title) problems.push("it has no title");
    if (!document.styleSheets.length || !document.styleSheets[0].cssRules.length) problems.push("it has no style");
    if (document.querySelectorAll("h1").length !== 1) problems.push("it has not one h1");
    const ids = [...document.querySelectorAll("[id]")].map(({ id }) => id);
    if (new Set(ids).size !== ids.length) problems.push("an id is there twice");
    return problems;
}

// Landmarks, one heading, and controls with these names.
async function heard(page, controls) {
    const nodes = await page.accessible();
    const problems = [];
    for (const role of ["banner", "main"])
        if (nodes.filter((each) => each.role === role).length !== 1) problems.push(`it has not one ${role}`);
    const headings = nodes.filter((each) => each.role === "heading");
    if (headings.length !== 1 || headings[0].level !== 1 || !headings[0].name) problems.push(`headings: ${JSON.stringify(headings)}`);
    const names = nodes.filter(({ role }) => ["link", "button", "textbox"].includes(role)).map(({ name }) => name);
    if (JSON.stringify(names) !== JSON.stringify(controls)) problems.push(`controls: ${JSON.stringify(names)}`);
    return problems;
}

// Everything that can be seen or heard and is wrong. controls: the names of the page's links and buttons, in order.
export async function problemsOf(page, controls) {
    return [...await page.evaluate(inspect), ...await heard(page, controls)];
}

// The Tab key goes through the controls in the order in which they are read, and shows where it is.
export async function problemsOfKeys(page, controls) {
    const problems = [];
    for (const name of controls) {
        await page.press("Tab");
        const { text, visible } = await page.evaluate(() => {
            const { outlineStyle, outlineWidth } = getComputedStyle(document.activeElement);
            return { text: document.activeElement.innerText, visible: outlineStyle !== "none" && parseFloat(outlineWidth) >= 2 };
        });
        if (text !== name) problems.push(`Tab leads to "${text}" instead of "${name}"`);
        if (!visible) problems.push(`the focus of "${text}" cannot be seen`);
    }
    await page.evaluate(() => document.activeElement.blur());
    return problems;
}
