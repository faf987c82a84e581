// Which results of a search come first: an entry of the glossary, then headings and texts of pages,
// then names in the code. Sphinx adds up these points.
var Scorer = {
  score: ([page, title, anchor, text, points]) =>
    page === "docs/glossary" && anchor ? points + 100 : points,
  objNameMatch: 6,
  objPartialMatch: 3,
  objPrio: { 0: 0, 1: 0, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
