// The board: one of several is shown, sorted, filtered, and given as CSV and JSON; a run's record opens.

function sortTable(table, column) {
  const heads = all("thead th", table);
  const head = heads[column];
  const down = head.getAttribute("aria-sort") === "ascending";
  heads.forEach((other) => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const text = head.dataset.type === "text";
  const keyed = all("tbody tr", table).map((row) => [row.children[column].dataset.sort ?? "", row]);
  keyed.sort(([a], [b]) => {
    if (a === "" || b === "") return (a === "") - (b === ""); // what has no value stays below
    const order = text ? a.localeCompare(b, "en", { numeric: true }) : Number(a) - Number(b);
    return down ? -order : order;
  });
  table.tBodies[0].append(...keyed.map(([, row]) => row));
}

function startBoards() {
  const choice = document.getElementById("board-choice");
  const find = document.getElementById("board-find");
  const kind = document.getElementById("board-kind");
  const count = document.getElementById("board-count");
  const boards = all(".board");
  const chosen = () => boards[choice ? choice.value : 0];

  function filter() {
    const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const board of boards) board.hidden = board !== chosen();
    const rows = all("tbody tr", chosen());
    for (const row of rows) {
      const text = row.dataset.text.toLowerCase();
      row.hidden = (kind.value && row.dataset.kind !== kind.value) || !words.every((word) => text.includes(word));
    }
    count.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} arms`;
  }

  for (const table of all("table.sortable")) {
    all("thead th", table).forEach((head, column) => {
      const button = head.querySelector("button");
      if (button) button.addEventListener("click", () => sortTable(table, column));
    });
  }
  for (const input of [choice, find, kind]) if (input) input.addEventListener("input", filter);
  document.getElementById("board-csv").addEventListener("click", () => {
    const name = chosen().dataset.board;
    download(`${name}.csv`, "text/csv", page.csv[name]);
  });
  document.getElementById("board-json").addEventListener("click", () => {
    const name = chosen().dataset.board;
    const board = page.boards.find((each) => each.name === name);
    const runs = board.rows.flatMap((row) => row.runs.map((run) => page.records[run.hash]));
    download(`${name}.json`, "application/json", JSON.stringify({ ...board, records: runs }, null, 1));
  });
  filter();
}

function startRecords() {
  const dialog = document.getElementById("record");
  const text = document.getElementById("record-text");
  const title = document.getElementById("record-title");
  function open() {
    const hash = location.hash.slice(5);
    if (!location.hash.startsWith("#run-") || !Object.hasOwn(page.records, hash)) return;
    const record = page.records[hash];
    title.textContent = `${record.task}: ${record.arm}, seed ${record.seed} (${hash})`;
    text.textContent = JSON.stringify(record, null, 1);
    if (!dialog.open) dialog.showModal();
  }
  dialog.addEventListener("close", () => history.replaceState(null, "", " "));
  window.addEventListener("hashchange", open);
  open();
}

function startGains() {
  for (const gain of all(".gain")) {
    const choice = gain.querySelector(".gain-arm");
    const show = () => {
      for (const row of all("tbody tr", gain)) row.hidden = row.dataset.arm !== choice.value;
    };
    choice.addEventListener("input", show);
    show();
  }
}

function startFloors() {
  for (const part of all(".realism")) {
    const rows = all("table.floors tr", part);
    const show = (box) => {
      for (const row of rows) row.children[Number(box.value) + 1].hidden = !box.checked;
    };
    for (const box of all(".columns input", part)) {
      box.addEventListener("change", () => show(box));
      show(box);
    }
  }
}
