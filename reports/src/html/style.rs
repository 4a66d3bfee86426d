//! How the page looks: light and dark, wide and narrow.

/// The style sheet. It has no `<` and no `&`, so it is the same in HTML and in XML.
pub const CSS: &str = "
:root { --back: #fff; --text: #1c2024; --dim: #667; --line: #d8dce2; --card: #f5f6f8;
  --good: #18794e; --bad: #c62a2f; --open: #8a6100; --mark: #3a5bc7; }
@media (prefers-color-scheme: dark) {
  :root { --back: #15171a; --text: #e8eaed; --dim: #9aa1ab; --line: #343a42; --card: #1e2226;
    --good: #4cc38a; --bad: #ff7b7b; --open: #e2b33c; --mark: #8da4ef; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--text);
  font: 15px/1.45 system-ui, sans-serif; overflow-wrap: anywhere; }
header, main { max-width: 72rem; margin: 0 auto; padding: 1rem; }
header { border-top: .5rem solid var(--line); }
header.good { border-color: var(--good); } header.bad { border-color: var(--bad); }
header.open { border-color: var(--open); }
h1 { font-size: 1.35rem; } h2 { margin: 2rem 0 .6rem; font-size: 1.15rem; } h3 { margin: 1rem 0 .3rem; font-size: 1rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem .8rem; margin: 0; }
dt, small { color: var(--dim); } dd { margin: 0; }
a { color: var(--mark); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { padding: .3rem .6rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
th { color: var(--dim); font-weight: 600; }
td { font-variant-numeric: tabular-nums; }
td small { white-space: normal; }
ul.criteria { list-style: none; padding: 0; } ul.criteria ul { list-style: none; padding-left: 1.6rem; }
.good b, .badge.good { color: var(--good); } .bad b, .badge.bad { color: var(--bad); }
.open b, .badge.open { color: var(--open); }
.badge { font-weight: 600; }
details { padding: .15rem 0; } summary { cursor: pointer; }
details.scenario { border-bottom: 1px solid var(--line); padding: .3rem 0; }
details.scenario summary { display: flex; gap: .8rem; align-items: baseline; }
details.scenario summary .name { flex: 1; } details.scenario .body { padding: .3rem 0 .8rem 1rem; }
pre { background: var(--card); padding: .6rem; overflow-x: auto; font-size: 12px; line-height: 1.35; }
code { font-size: .9em; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)); gap: 1rem; }
figure { margin: 0; } figcaption { color: var(--dim); font-size: .85rem; }
svg { display: block; max-width: 100%; height: auto; }
svg text { fill: var(--dim); font: 10px system-ui, sans-serif; }
.axis { stroke: var(--line); } .value { fill: var(--mark); } .curve { fill: none; stroke: var(--mark); stroke-width: 1.5; }
.dot { fill: var(--mark); fill-opacity: .45; } .floor { stroke: var(--bad); stroke-width: 2; }
.own { stroke: var(--good); stroke-width: 2; }
.lane-good { fill: var(--good); fill-opacity: .55; } .lane-bad { fill: var(--bad); }
.lane-open { fill: var(--open); fill-opacity: .7; }
";
