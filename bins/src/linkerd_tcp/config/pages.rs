//! The reference of both languages.

use super::languages;
use crate::kit::about;
use crate::kit::load::language;

const WHAT: &str = "A configuration of linkerd-tcp is YAML or JSON. A file has either `proxies` or `routers` at its top, \
which are two languages: those of the original up to 0.0.3, and from 0.1.0 on. A field that is not in its table is refused, \
as is one that comes twice; `null` is as good as an absent field. Paths of files are relative to where the program was \
started.";

/// The reference in Markdown.
pub fn reference() -> String {
    let mut page = format!(
        "# Configuration of linkerd-tcp\n\n<!-- Made of the program by UPDATE_DOCS=1 cargo nextest run -p bins --test reference -->\n\n\
         {WHAT}\n\n`linkerd-tcp --check FILE` says what is wrong, `--print-config` what is in force. For editors there is a \
         [schema](schema/linkerd-tcp.json): put a line such as\n\n\
         ```yaml\n# yaml-language-server: $schema=docs/schema/linkerd-tcp.json\n```\n\ninto the file.\n\n"
    );
    let mut seen = Vec::new();
    for file in languages() {
        page.push_str(&language::reference(file, 2, &mut seen));
    }
    page.truncate(page.trim_end().len());
    page.push('\n');
    page
}

/// The page of the manual about the file, for section 5 and troff.
pub fn manual() -> String {
    let mut page = format!(
        ".TH linkerd-tcp.yml 5 \"\" \"linkerd-tcp {}\" meshlib\n.SH NAME\nlinkerd\\-tcp.yml \\- configuration of linkerd\\-tcp\n\
         .SH DESCRIPTION\n{}\n",
        env!("CARGO_PKG_VERSION"),
        about::escaped(&WHAT.replace('`', ""))
    );
    let mut seen = Vec::new();
    for file in languages() {
        page.push_str(&language::manual(file, &mut seen));
    }
    page.push_str(".SH SEE ALSO\nlinkerd\\-tcp(8)\n");
    page
}
