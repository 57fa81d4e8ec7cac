// Makes the tables of the site sortable and filters them. DataTables is only loaded by pages that have such a table.
(() => {
  "use strict";
  const folder = document.currentScript.src.replace(/site\.js.*$/, "");

  const load = (address) =>
    new Promise((resolve, reject) => {
      const script = Object.assign(document.createElement("script"), { src: address, onload: resolve, onerror: reject });
      document.head.append(script);
    });

  const filterBy = (DataTable, select) => {
    const apply = () => {
      const wanted = select.value ? `^${DataTable.util.escapeRegex(select.value)}$` : "";
      new DataTable.Api(`#${select.dataset.table}`).column(Number(select.dataset.column)).search(wanted, true, false).draw();
    };
    select.addEventListener("change", apply);
    if (select.value) apply(); // a browser that goes back keeps what was chosen
  };

  // what is sorted within groups is written as the group's place and a number: "0 -7.9"
  const sortWithinGroups = (DataTable) => {
    const parts = (text) => String(text).split(" ").map(Number);
    const within = (sign) => (a, b) => {
      const [group, value] = parts(a), [otherGroup, otherValue] = parts(b);
      return group - otherGroup || sign * (value - otherValue);
    };
    DataTable.type("within-group", { order: { asc: within(1), desc: within(-1) }, className: "dt-type-numeric" });
  };

  const makeTables = async () => {
    const tables = document.querySelectorAll("table.sortable");
    if (!tables.length) return;
    await load(`${folder}tables.js`);
    const { jQuery } = await import(window.rkdkitTables);
    const DataTable = jQuery.fn.dataTable;
    sortWithinGroups(DataTable);
    for (const table of tables) {
      jQuery(table).DataTable({
        autoWidth: false,
        lengthMenu: [10, 25, 50, 100, { label: "all", value: -1 }],
        language: { search: "Find", lengthMenu: "_MENU_ rows", info: "_START_ to _END_ of _TOTAL_" },
      });
    }
    document.querySelectorAll("select[data-table]").forEach((select) => filterBy(DataTable, select));
    document.documentElement.dataset.tables = "ready"; // what tests wait for
  };

  // the theme's buttons that unfold the navigation hold only an icon
  const nameButtons = () => {
    for (const button of document.querySelectorAll(".bd-sidebar summary")) {
      const page = button.closest("li").querySelector("a").textContent.trim();
      button.setAttribute("aria-label", `Pages below ${page}`);
    }
  };

  // from a file, a page may not read others to show where a word was found
  if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
  document.addEventListener("DOMContentLoaded", nameButtons);
  document.addEventListener("DOMContentLoaded", makeTables);
})();
