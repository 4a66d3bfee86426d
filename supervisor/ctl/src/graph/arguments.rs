//! The commands that ask about the graph as a whole.

use clap::Subcommand;

const RDEPS: &str = "\
Examples:
  graphctl rdeps network.configured
  graphctl rdeps network.configured --json";

const SIMULATE: &str = "\
Examples:
  graphctl simulate remove network
  graphctl simulate remove network --json

What is up now decides: a capability is withdrawn when no other provider that is up remains, and
what requires it would be stopped. Oneshots that are DONE stay DONE. Nothing is changed.";

const CHECK_CYCLES: &str = "\
Examples:
  graphctl check-cycles && echo none
  graphctl check-cycles --verbose         which capabilities, and who else is kept from starting

Exit codes: 0 no cycle, 1 at least one.";

const CHECK: &str = "\
Example:
  graphctl check && echo everything can start

Exit codes: 0 every component can start, 1 some can not.";

const VALIDATE: &str = "\
Example:
  graphctl validate --json

Errors are cycles, requirements that nobody provides, whatever needs such components, and refused
component files. Notes are about optional capabilities and do no harm.
Exit codes: 0 no errors, 1 errors.";

const PATH: &str = "\
Example:
  graphctl path web storage               by which capabilities web depends on storage

Exit codes: 0 it does, 1 it does not.";

const DOT: &str = "\
Examples:
  graphctl dot | dot -Tsvg > graph.svg
  graphctl dot | xdot -

Boxes are components, coloured by state; ellipses are capabilities. Edges lead from the provider
to the capability to who needs it, dashed where it is optional.";

const ANALYZE: &str = "\
Examples:
  graphctl analyze
  graphctl analyze --detailed             each component's layer and number of dependents

The built-in component `kernel` counts as one. The critical path is the longest chain of components
of which each waits for the one before it; the maximum depth is its number of steps.";

/// Questions about the graph.
#[derive(Debug, Subcommand)]
pub enum Question {
    /// Show the components that depend on a capability
    #[command(after_help = RDEPS)]
    Rdeps {
        /// Capability
        capability: String,
    },
    /// Show what a change would do, without doing it
    #[command(subcommand)]
    Simulate(Change),
    /// Draw the graph in Graphviz's language
    #[command(after_help = DOT)]
    Dot,
    /// Show dependency cycles that keep components from starting
    #[command(after_help = CHECK_CYCLES)]
    CheckCycles {
        /// Also show the capabilities, and the components that need those on a cycle
        #[arg(long)]
        verbose: bool,
    },
    /// Tell whether every component can start
    #[command(after_help = CHECK)]
    Check,
    /// Show everything that is wrong with the declarations
    #[command(after_help = VALIDATE)]
    Validate,
    /// Show the components in an order in which they can start
    Order,
    /// Show the components by activation layer
    Layers,
    /// Show how one component depends on another
    #[command(after_help = PATH)]
    Path {
        /// Component that depends
        from: String,
        /// Component it depends on
        to: String,
    },
    /// Show components that depend on each other, also where alternative providers break the ring
    Scc,
    /// Show numbers about the graph, and its critical path
    #[command(after_help = ANALYZE)]
    Analyze {
        /// Also show each component
        #[arg(long)]
        detailed: bool,
    },
}

/// Changes that can be simulated.
#[derive(Debug, Subcommand)]
pub enum Change {
    /// The component goes away
    #[command(after_help = SIMULATE)]
    Remove {
        /// Component
        name: String,
    },
}
