import java.nio.file.Files;
import java.nio.file.Path;
import java.security.cert.CertPathValidator;
import java.security.cert.CertPathValidatorException;
import java.security.cert.CertStore;
import java.security.cert.CertificateFactory;
import java.security.cert.CollectionCertStoreParameters;
import java.security.cert.PKIXParameters;
import java.security.cert.PKIXRevocationChecker;
import java.security.cert.TrustAnchor;
import java.security.cert.X509Certificate;
import java.util.EnumSet;
import java.util.List;
import java.util.Set;

/** What Java's own validator says of each leaf, by CRLs alone: root, issuing CA, lists, then leaves (all PEM). */
public class JudgePath {
    static final CertificateFactory FACTORY = factory();

    public static void main(String[] files) throws Exception {
        X509Certificate root = read(files[0]);
        try (var lists = Files.newInputStream(Path.of(files[2]))) {
            var store = CertStore.getInstance("Collection",
                    new CollectionCertStoreParameters(List.copyOf(FACTORY.generateCRLs(lists))));
            for (int place = 3; place < files.length; place++) {
                System.out.println(judge(root, List.of(read(files[place]), read(files[1])), store));
            }
        }
    }

    static String judge(X509Certificate root, List<X509Certificate> path, CertStore lists) throws Exception {
        var validator = CertPathValidator.getInstance("PKIX");
        var checker = (PKIXRevocationChecker) validator.getRevocationChecker();
        // No network, and no OCSP instead.
        checker.setOptions(EnumSet.of(PKIXRevocationChecker.Option.PREFER_CRLS,
                PKIXRevocationChecker.Option.NO_FALLBACK));
        var parameters = new PKIXParameters(Set.of(new TrustAnchor(root, null)));
        parameters.addCertStore(lists);
        parameters.addCertPathChecker(checker);
        try {
            validator.validate(FACTORY.generateCertPath(path), parameters);
            return "good";
        } catch (CertPathValidatorException refusal) {
            return String.valueOf(refusal.getReason());
        }
    }

    static X509Certificate read(String file) throws Exception {
        try (var content = Files.newInputStream(Path.of(file))) {
            return (X509Certificate) FACTORY.generateCertificate(content);
        }
    }

    static CertificateFactory factory() {
        try {
            return CertificateFactory.getInstance("X.509");
        } catch (java.security.cert.CertificateException error) {
            throw new IllegalStateException(error);
        }
    }
}
