//! Decides what a kubeconfig file says.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// A kubeconfig with everything embedded; cluster, user and context are all called `default`, as in k3s.
#[must_use]
pub fn render(server: &str, authority_pem: &str, certificate_pem: &str, key_pem: &str) -> String {
    let data = |pem: &str| STANDARD.encode(pem);
    format!(
        "apiVersion: v1
kind: Config
clusters:
- name: default
  cluster:
    certificate-authority-data: {}
    server: {server}
contexts:
- name: default
  context:
    cluster: default
    user: default
current-context: default
preferences: {{}}
users:
- name: default
  user:
    client-certificate-data: {}
    client-key-data: {}
",
        data(authority_pem),
        data(certificate_pem),
        data(key_pem)
    )
}
