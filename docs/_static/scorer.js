// What the search lists first: exhibits, methods and texts before the names of Python objects. The numbers are Sphinx's
// own, and so is the `var`: its script declares it again.
var Scorer = {
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
  score: ([page, , , , score]) => {
    if (/^(exhibits\/|methods$|glossary$)/.test(page)) return score + 30;
    return page.startsWith("api/") ? score : score + 10;
  },
};
