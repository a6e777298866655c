//! The templates of the files that land on a node.

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, UndefinedBehavior, Value};

use crate::node::ledger::LayerName;
use crate::resource::change::Refusal;
use crate::resource::{Resource, Wanted};

/// The template that lies in `templates/` under the path it has on the node.
macro_rules! landing {
    ($path:literal) => {
        (
            $path,
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/templates", $path)),
        )
    };
}
pub(super) use landing;

/// A file on a node: its path there, and its template.
pub(super) type Template = (&'static str, &'static str);

/// The file that `template` makes with these values. What a template needs and nobody gave it is an error.
pub(super) fn file(
    layer: LayerName,
    (path, template): Template,
    mode: u32,
    values: Value,
) -> Result<Resource, Refusal> {
    let broken = |error: minijinja::Error| Refusal {
        layer,
        what: path.to_owned(),
        reason: format!("its template cannot be filled in: {error:#}"),
        hint: "this is a mistake in selfheal; please report it".to_owned(),
    };
    let mut environment = Environment::new();
    let mut syntax = SyntaxConfig::builder();
    syntax.keep_trailing_newline(true);
    let syntax = syntax.build().map_err(broken)?;
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_syntax(syntax);
    let content = environment.render_str(template, values).map_err(broken)?;
    Ok(verbatim(layer, (path, &content), mode))
}

/// The file as it stands in `templates/`.
pub(super) fn verbatim(layer: LayerName, (path, content): (&str, &str), mode: u32) -> Resource {
    Resource::new(
        layer,
        Wanted::File {
            path: path.into(),
            content: content.as_bytes().to_vec(),
            mode,
        },
    )
}
