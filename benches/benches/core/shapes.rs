//! What is measured: components by number, in graphs of known shapes.

use yakiros_core::component::parse;
use yakiros_core::engine::{FileChange, FileContent};
use yakiros_core::sim::Random;

/// Requirements of component `number`.
pub type Shape = fn(usize, &mut Random) -> Vec<usize>;

/// A *chain* (each needs the one before: the deepest graph), *layers* of ten (each needs two of the layer below: an
/// ordinary system), and *random* (three requirements among all before it, from a fixed seed).
pub const SHAPES: [(&str, Shape); 3] = [
    ("chain", |number, _| number.checked_sub(1).into_iter().collect()),
    ("layers", |number, _| {
        let below = (number / 10).checked_sub(1);
        below.map_or(Vec::new(), |layer| vec![layer * 10 + number % 10, layer * 10 + (number + 1) % 10])
    }),
    ("random", |number, random| {
        let pick = (0..3.min(number)).map(|_| random.below(number as u64) as usize);
        pick.collect()
    }),
];

/// The shape called *layers*.
pub const LAYERS: Shape = SHAPES[1].1;

/// The capability that component `number` provides.
pub fn capability(number: usize) -> String {
    format!("capability.{number}")
}

/// Its file.
pub fn file(number: usize, requires: &[usize]) -> String {
    let requires: Vec<_> = requires.iter().map(|n| format!("{:?}", capability(*n))).collect();
    format!(
        "[component]\nname = \"component-{number}\"\nbinary = \"/usr/bin/true\"\n\
         args = [\"--number\", \"{number}\"]\n[provides]\ncapabilities = [{:?}]\n\
         [requires]\ncapabilities = [{}]\n[lifecycle]\nrestart_max = 10\n\
         [resources]\nmemory_max = \"64M\"\n",
        capability(number),
        requires.join(", ")
    )
}

/// So many files of a shape.
pub fn files(count: usize, shape: Shape) -> Vec<String> {
    let mut random = Random::new(1);
    (0..count).map(|number| file(number, &shape(number, &mut random))).collect()
}

/// They have all appeared.
pub fn changes(texts: &[String]) -> Vec<FileChange> {
    let change = |(number, text): (usize, &String)| {
        let component = parse(text).component.expect("a component");
        FileChange { file: format!("{number:06}.toml"), content: FileContent::Component(Box::new(component)) }
    };
    texts.iter().enumerate().map(change).collect()
}
