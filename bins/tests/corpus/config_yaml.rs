//! What holds for any text that is given as a configuration.

use bins::linkerd_tcp::config;

/// Panics if reading the text does, or if a problem with it cannot be found again in it.
pub(crate) fn check(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    match config::parse(&text, "fuzz.yml") {
        Ok((config, _)) => {
            for router in &config.routers {
                for server in &router.servers {
                    // Every destination has settings.
                    let client = router.client.for_destination(&server.dst);
                    assert!(client.max_waiters > 0);
                }
            }
        }
        Err(error) => {
            let lines = text.split(['\n', '\r']).count();
            assert!(!error.problems().is_empty());
            for problem in error.problems() {
                assert!(!problem.text.is_empty());
                if let Some(position) = problem.place.position {
                    assert!(position.line <= lines + 1, "line {} of {lines}", position.line);
                }
            }
        }
    }
}
