<?php
// Sends the letters of the JSON in argv[1] with Debian's PHPMailer, over one connection; exit 1 on an error.
declare(strict_types=1);

use PHPMailer\PHPMailer\Exception;
use PHPMailer\PHPMailer\PHPMailer;

require '/usr/share/php/libphp-phpmailer/autoload.php';

$order = json_decode($argv[1], true, 16, JSON_THROW_ON_ERROR);
$mailer = new PHPMailer(true);
$mailer->isSMTP();
$mailer->SMTPKeepAlive = true;
$mailer->Host = $order['host'];
$mailer->Port = $order['port'];
$mailer->Timeout = 30;
$mailer->CharSet = PHPMailer::CHARSET_UTF8;
$mailer->SMTPOptions = ['ssl' => ['cafile' => $order['ca']]];
$mailer->SMTPSecure = ['none' => '', 'starttls' => PHPMailer::ENCRYPTION_STARTTLS,
    'implicit' => PHPMailer::ENCRYPTION_SMTPS][$order['tls']];
$mailer->SMTPAutoTLS = false;
$mailer->SMTPAuth = $order['username'] !== '';
$mailer->Username = $order['username'];
$mailer->Password = $order['password'];
$mailer->AuthType = $order['mechanism'] ?? '';
try {
    foreach ($order['letters'] as $letter) {
        $mailer->clearAllRecipients();
        $mailer->clearAttachments();
        $mailer->clearCustomHeaders();
        $mailer->setFrom($letter['sender'], 'App');
        $mailer->addAddress($letter['to']);
        if ($letter['bcc'] !== '') {
            $mailer->addBCC($letter['bcc']);
        }
        foreach ($letter['headers'] as $name => $value) {
            $mailer->addCustomHeader($name, $value);
        }
        $mailer->Subject = $letter['subject'];
        $mailer->isHTML(true);
        $mailer->Body = $letter['html'];
        $mailer->AltBody = $letter['text'];
        $mailer->addStringAttachment(base64_decode($letter['attachment'], true), $letter['filename']);
        $mailer->send();
        echo $mailer->getSMTPInstance()->getLastReply();
    }
} catch (Exception $error) {
    fwrite(STDERR, $error->getMessage() . "\n");
    exit(1);
} finally {
    $mailer->smtpClose();
}
