#[path = "../../src/resource/config_edit.rs"]
pub mod config_edit;
#[path = "../../src/resource/edit.rs"]
pub mod edit;
